"""Bad csv and tsv files."""

from __future__ import annotations

import gzip
from pathlib import Path

from .bad_case import Corpus, Given
from .bad_samples import ROWS, csv, label, lines, text, write

CORPUS = Corpus("csv")
_TWO = "2 classes: neg, pos"
_MIB = 2**20


def _add(name: str, content: str | bytes, file: str = "a.csv", encoding: str = "utf-8", **expected: object) -> None:
    CORPUS.add(f"csv {name}", lambda folder: write(folder, content, file, encoding), **expected)


_add("with a BOM", csv(), encoding="utf-8-sig", says=_TWO)
_add("in UTF-16 with its mark", csv(), encoding="utf-16", says=_TWO)
_add("in UTF-16 without a mark", csv(), encoding="utf-16-le", refused="looks like UTF-16 without its mark. Save it as")
_add(
    "in latin-1",
    csv(bad=["w3 caf\xe9,pos"]),
    encoding="latin-1",
    refused=r"1 of 29 rows are not UTF-8 in the column 'text'.*row 24: w3 café.*iconv",
)
_add(
    "with a latin-1 header", csv("text,\xe9tiquette"), encoding="latin-1", refused="the first line.*is not UTF-8.*iconv"
)
_add("with latin-1 labels", csv(bad=["w3,\xe9"]), encoding="latin-1", refused="not UTF-8 in the column 'label'.*row 24")
_add("with a NUL in a text", csv(bad=["w3 a\0b,pos"]), says=_TWO)
_add("with NULs alone in a text", csv(bad=["\0\0,pos"]), refused="row 24: the text is empty but for control characters")
_add("of zeros", b"\0" * 4096, refused="nothing but zeros")
_add("with zeros at its end", csv().encode() + b"\0" * 512, refused="another number stands in 1 of the rows.*row 28: 1")
_add(
    "with a long row",
    csv(bad=["w3 w4,pos,w5"]),
    refused="first line has 2 cells.*another number stands in 1 of.*row 24: 3: w3",
)
_add("with a short row", csv(bad=["w3 w4"]), refused="row 24: 1: w3 w4")
_add("with fifty uneven rows", csv(bad=["a,b,c"] * 50), refused="in 50 of the rows.*row 33: 3.*and 40 more")
_add("with an open quote", csv(bad=['"w3 w4,pos']), refused="A quote is opened and not closed")
_add("with quotes after a backslash", csv(bad=['"a \\"b\\", c",pos']), refused='a quote inside is written ""')
_add("with quotes within a cell", csv(bad=['w3 5" w4,pos', 'a "b" c,neg']), says=_TWO)
_add("with line breaks in quotes", csv(bad=['"w3\nw4\r\nw5",pos']), says=_TWO)
_add("with carriage returns", csv(end="\r"), says=_TWO)
_add("with mixed line ends", csv().replace("\n", "\r\n", 9), says=_TWO)
_add("with blank lines", csv(bad=["", "", ""]), says=_TWO)
_add("with duplicate columns", csv("text,text"), refused="2 columns are called 'text'")
_add(
    "with two labels",
    "text,label,label\n" + "\n".join(f"{line},x" for line in lines()),
    refused="2 columns are called 'label'",
)
_add("without a label column", "text\n" + "\n".join(map(text, range(ROWS))), refused="Which column is the label")
_add(
    "of a thousand columns",
    ",".join(f"c{n}" for n in range(1000)) + "\n" + ",".join("1" * 1000),
    refused="and 950 more",
)
_add("that is empty", b"", refused="the file is empty")
_add("of a BOM alone", b"\xef\xbb\xbf", refused="the file is empty")
_add("of blank lines", b"\n\r\n \n", refused="the file is empty")
_add("of its header alone", "text,label\n", refused="no rows")
_add("without a header", "\n".join(lines()), refused="does the first line with the columns. names lack")
_add(
    "without a header, numbered",
    "\n".join(f"{text(n)},{n % 2}" for n in range(ROWS)),
    refused="like a row of the table",
)
_add(
    "joined with its header", csv(bad=["text,label"]), refused="stands again in 1 of the rows .24; .*were files joined"
)
_add("with spaces in its header", csv("text , label"), says=_TWO)
_add("with semicolons", csv("text;label", separator=";"), says=f"separated by semicolons.*{_TWO}")
_add("with tabs", csv("text\tlabel", separator="\t"), says=f"separated by tabs.*{_TWO}")
_add("with bars", csv("text|label", separator="|"), says=_TWO)
_add("called tsv", csv(), file="a.tsv", says=f"separated by commas.*{_TWO}")
_add(
    "with commas at its ends",
    "text,label,,\n" + "\n".join(f"{line},," for line in lines()),
    says=_TWO,
)
_add(
    "with the index of pandas", ",text,label\n" + "\n".join(f"{n},{line}" for n, line in enumerate(lines())), says=_TWO
)
_add("of a web page", "<!DOCTYPE html><html><body>Sign in, please</body></html>", refused="this is a web page")
_add(
    "that is a workbook", b"PK\x03\x04\x14\0\x06\0rest,of,it", refused="this is a zip archive .an Excel workbook is one"
)
_add("that is a picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR,a,b\n,,,", refused="this is an image .PNG., not a table")
_add("that is a pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", refused="git lfs pull")
_add("with empty texts", csv(bad=[",pos", '"",neg']), refused="2 of 30 rows.*row 24: the text is empty.*row 25")
_add(
    "with texts of numbers",
    "text,label\n" + "\n".join(f"{n},{label(n)}" for n in range(ROWS)),
    refused="Which column is the text",
)
_add(
    "with gaps for labels",
    csv(bad=["w3,", "w4, "]),
    refused="row 24: the label is missing.*row 25: the label is missing",
)
_add("with NA for labels", csv(bad=["w3,NA", "w4,NA"]), says="3 classes: NA, neg, pos")
_add(
    "with numbers, gaps and NaN",
    "text,label\n" + "".join(f"w{n},{[0, 1, 'NaN', ''][n % 4]}\n" for n in range(3, ROWS)),
    refused="of 21 rows cannot be used.*row 0: the label is missing",
)
_add("compressed and cut off", gzip.compress(csv().encode())[:-30], file="a.csv.gz", refused="a.csv.gz: .*ended")
_add("compressed by name alone", csv(), file="a.csv.gz", refused="a.csv.gz: Not a gzipped file")
_add("compressed, and not by name", gzip.compress(csv().encode()), refused="this is gzip: let its name end in .gz")
_add("with terminal codes", csv(bad=["w3 \x1b[2J\x1b]0;x\x07 w4,pos"]), says=_TWO)
_add("with a terminal code for a label", csv(bad=["w3,\x1b[31mred", "w4,\x1b[31mred"]), says="3 classes")


@CORPUS(refused="2 of 30 rows cannot be used.*row 24.*row 25")
def _csv_with_empty_texts_named(folder: Path) -> Given:
    return write(folder, csv(bad=[",pos", "  ,neg"]))


@CORPUS(says=r"2 broken rows left out.*2 classes", skipped=2)
def _csv_with_empty_texts_skipped(folder: Path) -> Given:
    return write(folder, csv(bad=[",pos", "w3,"])) | {"on_error": "skip"}


@CORPUS(refused="data.label=lable: there is no such column. Did you mean 'label'")
def _csv_and_a_misspelt_column(folder: Path) -> Given:
    return write(folder, csv()) | {"label": "lable"}


@CORPUS(refused=r"b.csv has the columns \['text', 'tag'\]; .*a.csv has \['text', 'label'\]")
def _csvs_with_other_columns(folder: Path) -> Given:
    first, second = write(folder, csv())["dataset"], write(folder, csv("text,tag"), "b.csv")["dataset"]
    return {"dataset": (first, second), "test_split": None}


@CORPUS(refused="columns are of different types")
def _csvs_with_other_types(folder: Path) -> Given:
    first = write(folder, csv())["dataset"]
    second = write(folder, "text,label\nw3,1\nw4,2\n", "b.csv")["dataset"]
    return {"dataset": (first, second), "test_split": None}


@CORPUS(refused="b.csv: the file is empty")
def _csvs_of_which_one_is_empty(folder: Path) -> Given:
    write(folder, csv())
    write(folder, "", "b.csv")
    return {"dataset": str(folder / "*.csv"), "test_split": None}


@CORPUS(refused="becomes more than .* bytes; at most 100 times a file.s size", heavy=True)
def _csv_that_is_a_gzip_bomb(folder: Path) -> Given:
    member = gzip.compress(b"text,label\n" + b"w3 w4,pos\n" * (_MIB // 10))
    return write(folder, member * 1100, "a.csv.gz")


@CORPUS(says=_TWO, heavy=True)
def _csv_with_cells_of_10_MB(folder: Path) -> Given:
    return write(folder, csv(bad=["w3 w4 " * (10 * _MIB // 6) + ",pos"] * 8))


@CORPUS(refused="row 24: 3: x", heavy=True)
def _csv_with_a_ragged_row_of_10_MB(folder: Path) -> Given:
    return write(folder, csv(bad=["x" * (10 * _MIB) + ",pos,neg"]))


@CORPUS(refused=r"holds a text of 10,485,760 characters.*If another column is the label", heavy=True)
def _csv_with_a_label_of_10_MB(folder: Path) -> Given:
    return write(folder, csv(bad=["w3," + "x" * (10 * _MIB)]))
