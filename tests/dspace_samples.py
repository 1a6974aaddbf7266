"""DSpace exports as tests need them: items in the form of DSpace's AIPs."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping

BUNDLES = {
    "bitstream_1.pdf": ("ORIGINAL", "GROUP_1", "Thesis ünder way.pdf"),
    "bitstream_2.txt": ("LICENSE", "GROUP_2", "license.txt"),
    "bitstream_3.txt": ("TEXT", "GROUP_1", "Thesis ünder way.pdf.txt"),
    "bitstream_4.jpg": ("THUMBNAIL", "GROUP_1", "Thesis ünder way.pdf.jpg"),
}
CONTENTS = {
    "bitstream_1.pdf": b"%PDF-1.4\nthesis\n%%EOF\n",
    "bitstream_2.txt": b"I grant.\n",
    "bitstream_3.txt": b"thesis\n",
    "bitstream_4.jpg": b"\xff\xd8\xff\xe0 a picture",
}

_MODS = """<mods:mods xmlns:mods="http://www.loc.gov/mods/v3"><mods:titleInfo><mods:title>On light</mods:title>
</mods:titleInfo></mods:mods>"""
_DIM = """<dim:dim xmlns:dim="http://www.dspace.org/xmlns/dspace/dim" dspaceType="ITEM">
<dim:field mdschema="dc" element="title">On light</dim:field></dim:dim>"""
_TECH = """<dim:dim xmlns:dim="http://www.dspace.org/xmlns/dspace/dim">
<dim:field mdschema="dc" element="identifier" qualifier="uri">hdl:123456789/7</dim:field>
<dim:field mdschema="dc" element="relation" qualifier="isPartOf">hdl:123456789/2</dim:field></dim:dim>"""
_RIGHTS = """<rights:RightsDeclarationMD xmlns:rights="http://cosimo.stanford.edu/sdr/metsrights/"
 RIGHTSCATEGORY="LICENSED"><rights:Context CONTEXTCLASS="GENERAL PUBLIC"><rights:Permissions DISCOVER="true"
 MODIFY="false"/></rights:Context><rights:Context CONTEXTCLASS="MANAGED GRP"><rights:UserName
 USERTYPE="GROUP">Staff</rights:UserName><rights:Permissions MODIFY="true"/></rights:Context>
</rights:RightsDeclarationMD>"""


def wrapped(kind: str, xml: str) -> str:
    standard = f'MDTYPE="{kind}"' if kind in {"MODS", "PREMIS"} else f'MDTYPE="OTHER" OTHERMDTYPE="{kind}"'
    schema = 'xsi:schemaLocation="http://www.loc.gov/mods/v3 http://www.loc.gov/mods/v3/mods-3-1.xsd"'
    return f"<mdWrap {standard}><xmlData {schema if kind == 'MODS' else ''}>{xml}</xmlData></mdWrap>"


def mets(contents: Mapping[str, bytes] = CONTENTS, head: str = "", more: str = "") -> bytes:
    """The `mets.xml` of an item with these bitstreams."""
    names = "".join(
        f'<amdSec ID="amd_{number}"><techMD ID="t_{number}">'
        + wrapped(
            "PREMIS",
            f'<p:object xmlns:p="http://www.loc.gov/standards/premis"><p:originalName>{name}'
            "</p:originalName></p:object>",
        )
        + "</techMD></amdSec>"
        for number, (_, _, name) in enumerate(BUNDLES.values())
    )
    files = "".join(
        f'<fileGrp USE="{bundle}"><file ID="f_{number}" GROUPID="{group}" ADMID="amd_{number}" CHECKSUMTYPE="MD5"'
        f' CHECKSUM="{hashlib.md5(contents[path], usedforsecurity=False).hexdigest()}"><FLocat LOCTYPE="URL"'
        f' xlink:href="{path}"/></file></fileGrp>\n'
        for number, (path, (bundle, group, _)) in enumerate(BUNDLES.items())
        if path in contents
    )
    return f"""<?xml version="1.0" encoding="utf-8"?>{head}
<mets ID="m" OBJID="hdl:123456789/7" TYPE="DSpace ITEM" PROFILE="http://www.dspace.org/schema/aip/mets_aip_1_0.xsd"
 xmlns="http://www.loc.gov/METS/" xmlns:xlink="http://www.w3.org/1999/xlink"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<metsHdr/><dmdSec ID="d1">{wrapped("MODS", _MODS)}</dmdSec><dmdSec ID="d2">{wrapped("DIM", _DIM)}</dmdSec>
<amdSec ID="amd_item"><rightsMD ID="r1">{wrapped("METSRIGHTS", _RIGHTS)}</rightsMD>
<rightsMD ID="r2"><mdRef MDTYPE="OTHER" OTHERMDTYPE="DSpaceDepositLicense" LOCTYPE="URL"
 xlink:href="bitstream_2.txt"/></rightsMD><sourceMD ID="s1">{wrapped("AIP-TECHMD", _TECH)}</sourceMD></amdSec>
{names}<fileSec>{files}{more}</fileSec>
<structMap LABEL="Parent"><div><mptr LOCTYPE="HANDLE" xlink:href="123456789/2"/></div></structMap></mets>
""".encode()


def item(folder: str, contents: Mapping[str, bytes] = CONTENTS) -> dict[str, bytes]:
    """The files of an item, with their paths."""
    files = {"mets.xml": mets(contents), **contents}
    return {f"{folder}/{name}": content for name, content in files.items()}


def zipped(contents: Mapping[str, bytes] = CONTENTS) -> bytes:
    """An item as a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {"mets.xml": mets(contents), **contents}.items():
            archive.writestr(name, content)
    return buffer.getvalue()
