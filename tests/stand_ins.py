"""Programs that stand in for what neither Debian nor PyPI has: each does what its manual says of options, exit codes and
output, as far as ingestd relies on it.
"""

FITS = r"""#!/bin/bash
# FITS's user manual: -i FILE, -o FILE (else the console), -v prints the version alone. An error is a sentence on stderr and
# exit code 1. Its launchers (fits-env.sh, fits.sh) put each argument into double quotes and evaluate that. JHOVE within it
# may print `READBOX seen=true` before the document (fitstool/fits, issue 20).
args=""
for arg in "$@"; do args="$args \"$arg\""; done
export MAIN='
import getopt, os, sys
from xml.sax.saxutils import escape
print("Picked up JAVA_TOOL_OPTIONS: " + os.environ["JAVA_TOOL_OPTIONS"], file=sys.stderr)
options, rest = getopt.getopt(sys.argv[1:], "i:o:v")
told = dict(options)
if "-v" in told:
    sys.exit(print("1.6.0"))
path = told["-i"]
if rest or not os.path.isfile(path):
    sys.exit(path + " does not exist")
if "broken" in path:
    sys.exit("no tool could open it")
said = "It is a picture." if "prose" in path else (
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
    "<fits xmlns=\"http://hul.harvard.edu/ois/xml/ns/fits/fits_output\" version=\"1.6.0\" timestamp=\"5/31/23, 2:59 PM\">"
    "<fileinfo><filepath>" + escape(path) + "</filepath></fileinfo></fits>"
)
print("READBOX seen=true")
print(said, file=open(told["-o"], "w") if "-o" in told else sys.stdout)
'
cmd="python3 -c \"\$MAIN\" $args"
eval "exec $cmd"
"""

VERAPDF = """#!/usr/bin/env python3
# veraPDF's CLI documentation: `--format mrr` is the machine-readable report. It has a validationReport for each flavour that
# the file says it is, and of a file that is not parsed the exception. A file without .pdf is passed over but for
# --nonpdfext. Exit codes: 0 valid, 1 not valid, 2 options, 4 no files, 7 not parsed, 8 encrypted, 9 an exception.
import os, sys
from xml.sax.saxutils import escape

RULE = ('<rule specification="ISO 19005-2:2011" clause="6.1.4" testNumber="2" status="failed" failedChecks="1">'
        "<description>No object shall be &lt;free&gt; and used</description><object>CosXRef</object></rule>")


def report(flavour, *rules):
    compliant, words = ("false", "not compliant") if rules else ("true", "compliant")
    return (f'<validationReport jobEndStatus="normal" profileName="{flavour} validation profile" '
            f'statement="PDF file is {words} with Validation Profile requirements." isCompliant="{compliant}">'
            f'<details passedRules="100" failedRules="{len(rules)}">{"".join(rules)}</details></validationReport>')


def trouble(task, said):
    return (f'<taskException type="{task}" isExecuted="true" isSuccess="false"><duration>00:00:00.07</duration>'
            f"<exceptionMessage>{said}</exceptionMessage></taskException>")


FOUND = {
    "bad": (1, report("PDF/A-2B", RULE)),
    "half": (1, report("PDF/A-2U") + report("PDF/UA-1", RULE)),
    "cut": (7, trouble("PARSE", "Exception: can not locate xref table")),
    "locked": (8, trouble("PARSE", "Exception: The PDF stream appears to be encrypted.")),
    "odd": (9, trouble("VALIDATE", "Exception: Caught unexpected runtime exception during validation")),
}
print("Picked up JAVA_TOOL_OPTIONS: " + os.environ["JAVA_TOOL_OPTIONS"], file=sys.stderr)
if sys.argv[1:] == ["--version"]:
    print("veraPDF 1.26.5", "Built: Wed May 15 09:10:00 EDT 2024", "Developed by the veraPDF Consortium.", sep="\\n")
    sys.exit()
*options, path = sys.argv[1:]
if options[options.index("--format") + 1] not in ("mrr", "xml"):
    sys.exit(2)
if not path.lower().endswith(".pdf") and "--nonpdfext" not in options:
    print("SEVERE: There are no files to process.", file=sys.stderr)
    sys.exit(4)
code, said = FOUND.get(os.path.basename(path).partition(".")[0], (0, report("PDF/A-2B")))
print('<?xml version="1.0" encoding="utf-8"?>')
print('<report><buildInformation><releaseDetails id="core" version="1.26.5"/></buildInformation><jobs><job>')
print(f'<item size="1"><name>{escape(path)}</name></item>{said}</job></jobs></report>')
sys.exit(code)
"""
