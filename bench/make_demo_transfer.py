"""Make the sample transfer in `examples/demo-transfer`: the invented papers of an invented lighthouse keeper.

    python bench/make_demo_transfer.py examples/demo-transfer

The same versions of Pillow and reportlab make the same bytes. The files are committed, so that `make demo` needs
neither; run this only to change what they hold.
"""

from __future__ import annotations

import csv
import io
import math
import random
import struct
import sys
import wave
import zipfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont, PngImagePlugin
from reportlab.lib.pagesizes import A5
from reportlab.pdfgen.canvas import Canvas

SEED = 1911
KEEPER = "Ingrid Sørholt"
FRIEND = "Zoé Lefèvre"
PLACE = "Corran Skerry Light"

REPLY = "correspondence/Réponse de Zoé à Ingrid – déc. 1911.txt"
LETTER = "correspondence/letter-to-the-harbour-office.pdf"
PHOTOGRAPH = "photographs/tower-at-dusk.jpg"
CHART = "charts/corran-sound.png"
SKETCH = "charts/landing-steps.bmp"
HORN = "sound/fog-horn.wav"
BELL = "sound/landing-bell.aiff"
LOG = "log/1911-11.txt"
WATCHES = "log/lamp-and-weather.csv"
AID = "finding-aid.xml"
LAMP = "papers of the lamp.zip"

REPLY_TEXT = f"""\
Île-aux-Cormorans, le 9 décembre 1911

Chère Ingrid,

Votre lettre est arrivée avec le bateau du charbon, humide mais lisible. La nouvelle corne de brume s'entend donc
jusqu'à la pointe : tant mieux. Ici, la nôtre s'est tue deux nuits, et nous avons sonné la cloche à la main.

Je vous renvoie la carte du chenal, corrigée : la roche que vous appelez « le Tabouret » découvre à mi-marée, et
non à basse mer. Gardez-en une copie au phare ; j'ai porté l'original au bureau du port.

Le chien va bien. Il dort sous l'escalier et se plaint du vent.

Votre amie,
{FRIEND}
"""

LOG_TEXT = f"""\
{PLACE.upper()}
Log of the keeper, November 1911                                                  {KEEPER}

 1  Wind W 4, hazy. Lamp lit 16.12, out 07.40. Cleaned the lens, twelve panels of sixteen.
 2  Wind SW 6, rain. Lamp lit 16.10, out 07.42. Remaining four panels. Oil: 38 gallons.
 4  Wind SW 8, heavy sea over the landing. Wrote to the harbour office about the stair.
 7  Fog from 02.00. Horn sounded 5 h 20 min, one blast of three seconds each half minute.
 8  Fog until noon. Horn 10 h. The steamer Ardgair passed close, answered twice.
12  Clear, frost. The clockwork ran slow by four minutes a watch; dried and oiled the pinion.
15  Supply boat. Coal, flour, lamp glass (two broken), letters. Sent the chart to Z. L.
21  Wind NW 9. A window of the watch room broken. Shutters up. Lamp never out.
23  Storm over. One man of the Ardgair's boat taken in, well, sent home on the 25th.
30  Oil: 21 gallons. Lamp 442 hours this month, horn 31 hours.
"""

WATCH_ROWS = (
    ("date", "lit", "out", "oil_gallons", "horn_hours", "wind", "visibility"),
    ("1911-11-01", "16:12", "07:40", "39", "0", "W 4", "hazy"),
    ("1911-11-02", "16:10", "07:42", "38", "0", "SW 6", "rain"),
    ("1911-11-07", "15:59", "07:52", "35", "5.3", "calm", "fog"),
    ("1911-11-08", "15:57", "07:54", "35", "10", "calm", "fog"),
    ("1911-11-21", "15:35", "08:18", "27", "0", "NW 9", "spray"),
    ("1911-11-30", "15:24", "08:33", "21", "2.5", "S 2", "clear"),
)

LETTER_LINES = (
    f"{PLACE}, 4th November 1911",
    "",
    "To the Harbour Office",
    "",
    "Gentlemen,",
    "",
    "I have to report that the sea of this morning took away the lower",
    "nine steps of the landing stair, with the rail. Nobody was hurt.",
    "",
    "Until it is mended the supply boat cannot lie at the stair, and I ask",
    "that it come to the north gully, at slack water only, by daylight.",
    "",
    "The new fog horn answers well. It was heard at the Point, four miles",
    "down wind, on the 29th. I enclose the chart of the Sound with the",
    "rock that my colleague at Île-aux-Cormorans has found to be misplaced.",
    "",
    "I am, Gentlemen, your obedient servant,",
    "",
    f"{KEEPER}, keeper",
)

DEED_LINES = (
    "Deed of gift",
    "",
    f"The family of {KEEPER} gives the papers of {PLACE} to the archive,",
    "with all rights that it holds in them, to be kept and to be shown to",
    "anybody who asks. Received in one box, 24 May 2019.",
    "",
    "This deed, the light and everybody named in it are invented.",
)

FINDING_AID = f"""\
<?xml version="1.0" encoding="UTF-8"?>
<ead xmlns="http://ead3.archivists.org/schema/">
  <control>
    <recordid>corran-skerry</recordid>
    <filedesc>
      <titlestmt><titleproper>Papers of {PLACE}</titleproper></titlestmt>
    </filedesc>
    <maintenancestatus value="new"/>
    <maintenanceagency><agencyname>The archive of an example</agencyname></maintenanceagency>
    <maintenancehistory>
      <maintenanceevent>
        <eventtype value="created"/>
        <eventdatetime>2019-06-03</eventdatetime>
        <agenttype value="human"/>
        <agent>Archivist</agent>
      </maintenanceevent>
    </maintenancehistory>
  </control>
  <archdesc level="fonds">
    <did>
      <unittitle>Papers of {PLACE}</unittitle>
      <unitid>CSL</unitid>
      <unitdate>1911</unitdate>
      <physdesc>1 box</physdesc>
      <origination><persname><part>{KEEPER}</part></persname></origination>
    </did>
    <scopecontent>
      <p>Log, letters, a chart, a photograph, a sound and the papers of the lamp, kept by {KEEPER}.
         Place, people and ship are invented.</p>
    </scopecontent>
    <dsc>
      <c level="series"><did><unitid>CSL/1</unitid><unittitle>Correspondence</unittitle></did></c>
      <c level="series"><did><unitid>CSL/2</unitid><unittitle>Log and watch tables</unittitle></did></c>
      <c level="series"><did><unitid>CSL/3</unitid><unittitle>Chart of Corran Sound</unittitle></did></c>
      <c level="series"><did><unitid>CSL/4</unitid><unittitle>Photograph of the tower</unittitle></did></c>
      <c level="series"><did><unitid>CSL/5</unitid><unittitle>Recording of the fog horn</unittitle></did></c>
      <c level="series"><did><unitid>CSL/6</unitid><unittitle>Papers of the lamp</unittitle></did></c>
    </dsc>
  </archdesc>
</ead>
"""

METADATA = (
    ("filename", "dc.title", "dc.creator", "dc.date", "dc.type", "dc.language", "dc.description", "shelf_mark"),
    ("objects", f"Papers of {PLACE}", KEEPER, "1911", "Collection", "",
     "What the keeper of an invented light left: log, letters, chart, photograph, sound.", "CSL"),
    ("objects/photographs", "Photographs", "", "1911", "Collection", "", "One print.", "CSL/4"),
    (f"objects/{LETTER}", "Letter to the Harbour Office on the broken stair", KEEPER, "1911-11-04", "Text", "en",
     "Reports the loss of nine steps and asks for the supply boat to come to the north gully.", "CSL/1/1"),
    (f"objects/{REPLY}", "Réponse de Zoé Lefèvre", FRIEND, "1911-12-09", "Text", "fr",
     "Sends the chart back, corrected.", "CSL/1/2"),
    (f"objects/{LOG}", "Log, November 1911", KEEPER, "1911-11", "Text", "en", "", "CSL/2/1"),
    (f"objects/{CHART}", "Chart of Corran Sound", KEEPER, "1911", "StillImage", "",
     "The rock named the Stool is marked where it was believed to be.", "CSL/3/1"),
    (f"objects/{SKETCH}", "Sketch of the landing steps", KEEPER, "1911-11", "StillImage", "",
     "The nine steps that the sea took are dotted.", "CSL/3/2"),
    (f"objects/{PHOTOGRAPH}", "The tower at dusk", "", "1911", "StillImage", "", "Sepia print.", "CSL/4/1"),
    (f"objects/{HORN}", "Fog horn", "", "1911-11-07", "Sound", "", "One blast of three seconds.", "CSL/5/1"),
    (f"objects/{BELL}", "Bell of the landing", "", "1911-11-07", "Sound", "", "Rung by hand while the horn was silent.",
     "CSL/5/2"),
)  # fmt: skip


def main() -> None:
    target = Path(sys.argv[1])
    for name, content in contents().items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        print(f"{len(content):>8}  {name}")


def contents() -> dict[str, bytes]:
    """Everything in the transfer, by path within it."""
    return {
        AID: FINDING_AID.encode(),
        LETTER: letter(LETTER_LINES, title="Letter to the Harbour Office"),
        REPLY: REPLY_TEXT.encode(),
        LOG: LOG_TEXT.encode(),
        WATCHES: table(WATCH_ROWS),
        CHART: chart(),
        SKETCH: sketch(),
        PHOTOGRAPH: photograph(),
        HORN: fog_horn(),
        BELL: bell(),
        LAMP: papers_of_the_lamp(),
        "metadata/metadata.csv": table(METADATA),
        "metadata/submissionDocumentation/deed-of-gift.pdf": letter(DEED_LINES, title="Deed of gift"),
    }


def table(rows: tuple[tuple[str, ...], ...]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def letter(lines: tuple[str, ...], *, title: str) -> bytes:
    file = io.BytesIO()
    page = Canvas(file, pagesize=A5, invariant=1, pageCompression=1)
    page.setTitle(title)
    page.setAuthor(KEEPER)
    page.setSubject(PLACE)
    text = page.beginText(42, A5[1] - 64)
    text.setFont("Times-Roman", 11, leading=16)
    text.textLines(list(lines))
    page.drawText(text)
    page.showPage()
    page.save()
    return file.getvalue()


def photograph() -> bytes:
    """A tower, its beam, the sea and the grain of the print, in sepia."""
    noise = random.Random(SEED)
    width, height = 640, 800
    horizon = 560
    picture = Image.new("L", (width, height))
    draw = ImageDraw.Draw(picture)
    for y in range(horizon):
        draw.line((0, y, width, y), fill=60 + 130 * y // horizon)
    for y in range(horizon, height):
        draw.line((0, y, width, y), fill=120 - 80 * (y - horizon) // (height - horizon))
    for _ in range(260):
        x, y = noise.randrange(width), noise.randrange(horizon + 6, height)
        draw.line((x, y, x + noise.randrange(12, 60), y), fill=noise.randrange(70, 150))
    draw.polygon([(330, 202), (width, 90), (width, 260)], fill=214)
    picture = picture.filter(ImageFilter.GaussianBlur(5))
    draw = ImageDraw.Draw(picture)
    draw.polygon([(60, 640), (150, 545), (250, 520), (400, 528), (500, 570), (580, 650)], fill=34)
    draw.polygon([(268, 530), (292, 240), (368, 240), (392, 530)], fill=188)
    draw.polygon([(345, 530), (342, 240), (368, 240), (392, 530)], fill=128)
    for y in (300, 390, 470):
        draw.rectangle((322, y, 336, y + 26), fill=42)
    draw.rectangle((278, 228, 382, 242), fill=46)
    draw.rectangle((300, 180, 360, 228), fill=246, outline=46, width=4)
    draw.polygon([(290, 180), (330, 140), (370, 180)], fill=46)
    grain = Image.frombytes("L", (width, height), noise.randbytes(width * height))
    picture = Image.blend(picture.filter(ImageFilter.GaussianBlur(0.8)), grain, 0.07)
    sepia = Image.merge("RGB", [picture.point([min(255, int(v * k)) for v in range(256)]) for k in (1.0, 0.86, 0.66)])
    exif = Image.Exif()
    exif[0x010E] = f"{PLACE} at dusk"  # ImageDescription
    exif[0x013B] = KEEPER.encode("ascii", "replace").decode()  # Artist is ASCII
    exif[0x8298] = "Given to the archive in 2019"  # Copyright
    file = io.BytesIO()
    sepia.save(file, "JPEG", quality=72, dpi=(300, 300), exif=exif)
    return file.getvalue()


def chart() -> bytes:
    """Islands, soundings, a compass and the misplaced rock."""
    draw_from = random.Random(SEED + 1)
    picture = Image.new("P", (720, 520), 0)
    picture.putpalette([222, 233, 236, 238, 226, 190, 90, 80, 60, 176, 54, 40, 160, 190, 200])
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=15)
    for x, y, size in ((180, 170, 95), (520, 120, 60), (560, 380, 110), (90, 430, 50)):
        outline = [
            (
                x + math.cos(turn / 24 * math.tau) * size * draw_from.uniform(0.75, 1.25),
                y + math.sin(turn / 24 * math.tau) * size * 0.7 * draw_from.uniform(0.75, 1.25),
            )
            for turn in range(24)
        ]
        draw.polygon(outline, fill=1, outline=2)
    for _ in range(60):
        x, y = draw_from.randrange(20, 700), draw_from.randrange(20, 500)
        if picture.getpixel((x, y)) == 0:
            draw.text((x, y), str(draw_from.randrange(3, 42)), fill=4, font=ImageFont.load_default(size=11))
    draw.line((400, 470, 330, 300, 380, 40), fill=3, width=2)
    draw.ellipse((346, 256, 358, 268), outline=3, width=2)
    draw.text((366, 254), "the Stool (dries?)", fill=3, font=font)
    draw.text((138, 160), "Corran", fill=2, font=font)
    draw.text((530, 372), "Ardgair", fill=2, font=font)
    draw.text((24, 16), "CORRAN SOUND, soundings in fathoms", fill=2, font=font)
    draw.polygon([(660, 60), (668, 96), (660, 88), (652, 96)], fill=2)
    draw.text((655, 40), "N", fill=2, font=font)
    about = PngImagePlugin.PngInfo()
    about.add_text("Title", "Chart of Corran Sound")
    about.add_itxt("Author", KEEPER, lang="no")
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True, pnginfo=about, dpi=(150, 150))
    return file.getvalue()


def fog_horn() -> bytes:
    """One blast of three seconds: two reeds a little apart, and their overtones."""
    rate, seconds = 11_025, 3.0
    samples = []
    for number in range(int(rate * seconds)):
        at = number / rate
        loud = min(1.0, at / 0.25, (seconds - at) / 0.6)
        tone = sum(
            math.sin(math.tau * base * overtone * at) / overtone**1.3
            for base in (178.0, 181.5)
            for overtone in (1, 2, 3, 5)
        )
        samples.append(round(6_500 * loud * tone))
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return file.getvalue()


def sketch() -> bytes:
    """The steps from the landing to the tower, in ink: a bitmap, which nobody should have to read for ever."""
    picture = Image.new("1", (320, 240), 1)
    draw = ImageDraw.Draw(picture)
    for step in range(18):
        x, y = 40 + step * 13, 210 - step * 10
        if 5 <= step < 14:
            for dot in range(0, 13, 4):
                draw.point((x + dot, y), fill=0)
        else:
            draw.line((x, y, x + 13, y, x + 13, y - 10), fill=0, width=2)
    draw.rectangle((280, 12, 306, 36), outline=0, width=2)
    draw.arc((-60, 200, 380, 260), 180, 360, fill=0)
    file = io.BytesIO()
    picture.save(file, "BMP")
    return file.getvalue()


def bell() -> bytes:
    """One stroke of a bell, as AIFF: sixteen bits, one channel, a second and a half."""
    rate, seconds = 11_025, 1.5
    count = int(rate * seconds)
    partials = ((440.0, 1.0), (883.0, 0.6), (1_188.0, 0.4), (1_760.0, 0.25), (2_637.0, 0.12))
    samples = [
        round(
            11_000
            * sum(part * math.exp(-at * hertz / 260) * math.sin(math.tau * hertz * at) for hertz, part in partials)
        )
        for at in (number / rate for number in range(count))
    ]
    # The rate is a number of eighty bits: sign and exponent, then the mantissa with its leading one.
    power = rate.bit_length() - 1
    eighty = struct.pack(">HQ", 16_383 + power, rate << (63 - power))
    common = struct.pack(">hIh", 1, count, 16) + eighty
    sound = struct.pack(f">II{count}h", 0, 0, *samples)
    chunks = b"".join(
        name + struct.pack(">I", len(body)) + body for name, body in ((b"COMM", common), (b"SSND", sound))
    )
    return b"FORM" + struct.pack(">I", len(chunks) + 4) + b"AIFF" + chunks


def papers_of_the_lamp() -> bytes:
    """A zip with a table, a note and a drawing, all of one date."""
    drawing = Image.new("1", (240, 320), 1)
    draw = ImageDraw.Draw(drawing)
    for step in range(9):
        draw.ellipse((20 + step * 11, 60 + step * 11, 220 - step * 11, 260 - step * 11), outline=0)
    draw.line((120, 30, 120, 290), fill=0)
    image = io.BytesIO()
    drawing.save(image, "PNG", optimize=True)
    members = {
        "lens/section-of-the-lens.png": image.getvalue(),
        "lens/panels.csv": b"panel,state\n"
        + b"".join(b"%d,%s\n" % (n, b"chipped" if n == 7 else b"good") for n in range(1, 17)),
        "clockwork note.txt": b"Pinion dried and oiled 12 Nov. Loses four minutes a watch in frost.\n",
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, date_time=(2019, 5, 24, 10, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return file.getvalue()


if __name__ == "__main__":
    main()
