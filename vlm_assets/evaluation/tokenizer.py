"""The tokens that the COCO caption metrics count: Penn Treebank words, lower case, punctuation dropped.

The reference is `pycocoevalcap.tokenizer.PTBTokenizer`: a Java program (Stanford CoreNLP 3.4.1, `-preserveLines
-lowerCase`) behind a list of dropped tokens. This scanner was written from that program's output, not from its source:
at each position the longest match of `_RULES` wins. It keeps the quirks that change scores: contractions split
("don't" -> "do", "n't"), brackets stay as "-lrb-" since the drop list has them in upper case, "!!" stays while "!"
goes, what the program cannot read (emoji) vanishes, "2 1/2" is one token with a no-break space inside.

Equal on caption text: tests/golden/metrics_tokens.json.xz. Known differences: words glued together by apostrophes or
slashes ("o'brien12", "can'tand"); letters added to Unicode since 2012 are kept here and dropped there; and a caption is
read alone here, while the reference sees the next caption of its file as the text that follows: "plan b." before
"A man" loses its full stop there, "no." before "5 dogs" keeps it, ":)" at the end of the file loses its colon.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain

# Dropped by the reference after lower-casing, so its upper-case brackets match nothing: "-lrb-" counts as a word.
DROPPED = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())  # noqa: SIM905

# Character classes. Letters are those of Unicode's basic plane; the reference reads nothing above it.
_MARK = (
    "\u02c2-\u02c5\u02d2-\u02df\u02e5-\u02eb\u02ed\u02ef-\u036f\u0375\u0378-\u0379\u0384-\u0385\u03f6\u0483-\u0487"
    "\u055a-\u055f\u0591-\u05bd\u05bf\u05c1-\u05c2\u05c4-\u05c5\u05c7\u0615-\u061a\u064b-\u065e\u0670\u06d6-\u06e4"
    "\u06e7-\u06ed\u06fd-\u06fe\u070f\u0711\u0730-\u074c\u07a6-\u07b0\u07eb-\u07f3\u0900-\u0903\u093c\u093e-\u094e"
    "\u0951-\u0955\u0962-\u0963\u0981-\u0983\u09bc\u09be-\u09c4\u09c7-\u09c8\u09cb-\u09cd\u09d7\u09e2-\u09e3"
    "\u0a01-\u0a03\u0a3c\u0a3e-\u0a4f\u0a81-\u0a83\u0abc\u0abe-\u0acf\u0b82\u0bbe-\u0bc2\u0bc6-\u0bc8\u0bca-\u0bcd"
    "\u0c01-\u0c03\u0c3e-\u0c56\u0d3e-\u0d44\u0d46-\u0d48\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc"
    "\u0ec8-\u0ecd"
)
_SYMBOL = (
    "=|~^\\\\$&%¡¥-©¬®-±´¶-¸¿×÷\u037e\u0387\u0589\u05be\u05c0\u05c3\u05c6\u05f3-\u05f4\u0600-\u0603\u0606-\u060c"
    "\u0614\u061b\u061e-\u061f\u066a\u066d\u06d4\u0700-\u070d\u07f6-\u07f8\u0964-\u0965\u0e3f\u0e4f\u1fbd"
    "\u2016-\u2017\u2020-\u2023\u2030-\u2038\u203b\u203e-\u2042\u207a-\u207e\u208a-\u208e\u20a4\u2100-\u2101"
    "\u2103-\u2106\u2108-\u2109\u2114\u2116-\u2118\u211e-\u2123\u2125\u2127\u2129\u212e\u213a-\u213b\u2140-\u2144"
    "\u214a-\u214d\u214f\u2155-\u215e\u2190-\u2bff\u3001-\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40"
    "\uff5b-\uff65\uffe0-\uffe1\uffe5-\uffe6"
)
_REPLACED = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "€": "$", "¤": "$", "₠": "$", "\x80": "$", "£": "#", "¢": "cents", "…": "...", "\x85": "...",
    "¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3",
    "–": "--", "—": "--", "―": "--", "\x96": "--", "\x97": "--", "&mdash;": "--", "&ndash;": "--",
    **dict.fromkeys(["&amp;", "&Amp;", "&AMP;"], "&"), **dict.fromkeys(["&lt;", "&Lt;", "&LT;"], "<"),
    **dict.fromkeys(["&gt;", "&Gt;", "&GT;"], ">"), "&quot;": "'", "&apos;": "'",
    **dict.fromkeys('"‘’‚‛“”„‟‹›«»\x91\x92\x93\x94', "'"),  # one kind of quote will do: all are dropped
}  # fmt: skip

# Abbreviations keep their full stop: always; only with a capital, being words otherwise; only before a number.
_ABBREVIATIONS = r"""
ph\.d ed\.d al cf co ct dr ft ga jr ky lt md mo mr ms mt ph rd rt sq sr st va vs vt wm adj adm adv ala apr aug ave bhd
cie col cos cpl dak dec det drs ens esq est etc ext feb fla fri gen gov hon inc ind jan jos jul jun kan ltd maj mar
mfg mme mon mrs mtg neb nev nov oct pfc plc pte pty pvt rep rev sen sep seq sfc sgt spc ste sys tel thu tue wed wis
wyo alex ariz assn asst atty bldg blvd brig bros capt cmdr colo conn corp dept elec govs insp intl invt kans mich minn
mlle mont msgr natl okla penn ppte ppty pres prof ptes ptys reps sens sept supt tenn tues univ wisc assoc attys
bancorp calif comdr lieut messrs thurs treas
"""
_CAPITALISED = "az la pa ark del ill ore tex mass miss wash"
_BEFORE_NUMBER = "ca no op pp art fig nos figs prop"

_SENTENCE_STARTERS = r"""
a an as at he if in it so we but her now one our she the yet you here last many more once some such that then they
this what when these there their while about after however other since according mr\. ms\.
"""

_L = r"(?:[^\W_²³¹⁰⁴-⁹₀-₉¼-¾⅐-⅞①-⓿❶-➓])"  # a letter or a digit of any script
_A = rf"(?:(?!\d){_L})"  # a letter
_Q = "['’\x92]"
_S = "[ \xa0]"
_WORD = rf"(?:{_A}|[{_MARK}])(?:{_L}|[{_MARK}\xad])*"
_NAME = rf"[dDoOlL]{_Q}{_A}{{2,}}"  # o'neil, l'oreal, d'angelo
_ACRONYM = r"[A-Za-z](?:\.[A-Za-z])+\."
_HYPHENATED = rf"(?:{_L}(?:{_L}|[.,])*|{_NAME})(?:-(?:{_NAME}|o{_Q}clock|{_L}+))+"
_TAG_NAME = r"[A-Za-z][\w:.-]*"
_ATTRIBUTE = rf"""{_S}+{_TAG_NAME}(?:{_S}*={_S}*(?:'[^']*'|"[^"]*"))?"""


def _words(words: str) -> str:
    """Blank-separated words as a pattern for any of them."""
    return "|".join(words.split())


def _capitalised(words: str) -> str:
    return f"{_words(words.title())}|{_words(words.upper())}"


# Longest match wins; the earlier rule on a tie. A group, where there is one, is the token; what follows it in the
# match only helped to recognise it.
_RULES = [
    rf"</?{_TAG_NAME}(?:{_ATTRIBUTE})*{_S}*/?>|<[!?][A-Za-z-][^>]*>",  # <start>, <br />, <!-- note -->
    r"(?i:(can)not|(gon)na|(got)ta|(lem)me|(gim)me|(wan)na|('t)(?:is|was))",
    rf"({_A}*?(?![nN]){_A})[nN](?:{_Q}|`)[tT](?![A-Za-z])",  # do|n't, ca|n't
    rf"(?i:n(?:{_Q}|`)t)(?![A-Za-z])",
    rf"({_A}+)(?:'(?i:[msd]|re|ve|ll)(?![A-Za-z])|’(?i:[msd]|re|ve|ll)|{_Q}[nN]{_Q})",
    r"'(?i:[msd]|re|ve|ll)(?![A-Za-z])|’(?i:[msd]|re|ve|ll)",
    rf"{_Q}(?i:em|till?|cause)|{_Q}[nN]{_Q}|'[nN](?= |$)|’[nN]",
    rf"{_Q}[2-9]0[sS]|{_Q}\d\d(?={_S}|$)",  # the '90s; '95
    rf"[yYjJlLdD]{_Q}",  # y'|all
    rf"(?:[A-HJ-XZn]|[dDoOlL]){_Q}{_A}{{2,}}|{_A}+[aeiouyAEIOUY]{_Q}[aeiouA-Z]{_A}*",
    rf"(?i:o{_Q}clock|nat{_Q}l|c{_Q}mon|s{_Q}mores|ev{_Q}ry|e{_Q}er|li{_Q}l|nor{_Q}easter|c{_Q}est|dunkin{_Q}|somethin{_Q}|ol{_Q})",
    rf"{_WORD}(?:[.!?]{_WORD})*",
    rf"{_L}+",
    _HYPHENATED,
    rf"{_L}(?:{_L}|[.,])*(?:-{_L}+)*-{_ACRONYM}",
    rf"{_L}+(?:[-_](?:{_NAME}|o{_Q}clock|{_L}+))+",
    r"[A-Za-z0-9]+(?:-[A-Za-z]+)*(?:/[A-Za-z0-9]+(?:-[A-Za-z]+)*){1,2}",
    r"\d{1,2}[-/]\d{1,2}[-/]\d{2,4}",
    rf"({_L}(?:(?:{_L}|-)*{_L})?\.)[,;:]",  # "a dog., a cat": the reference takes it for an abbreviation
    rf"([A-Za-z])\.[ \t]+(?:(?:{_capitalised(_SENTENCE_STARTERS)})(?= |$)|</?{_TAG_NAME}>(?= |$))",  # plan b. The
    rf"[A-Za-z](?:\.[A-Za-z])*\.|(?i:{_words(_ABBREVIATIONS)})\.|(?:{_capitalised(_CAPITALISED)})\.",
    rf"((?i:{_words(_BEFORE_NUMBER)})\.){_S}?\d",
    r"[-+]?(?:\d*(?:[.:,]\d+)+|\d+)",
    r"\d+(?:\.\d+)*\.[xX](?![\w)])",  # version 2.x
    r"(?:\d{1,4}[- \xa0])?\d{1,4}(?:\\?/|⁄)\d{1,4}",  # 1/2, 2 1/2
    rf"(?:\(\d{{2,3}}\){_S}?|(?:\+\+?)?(?:\d{{2,4}}[- \xa0])?\d{{2,4}}[- \xa0])\d{{3,4}}[- \xa0]?\d{{3,5}}",
    r"[A-Z]*\$",
    r"[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+",
    r"[Cc]\+\+|[CcFf]#(?![A-Za-z])",
    r"(?i:https?)://[^\s\"<>|()]+[^\s\"<>|.!?(){},-]",
    r"(?:www\.(?:[^\s\"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}|[A-Za-z0-9][^\s\"`'<>|.!?(){},\-_$]*\.(?:[^\s\"`'<>|.!?(){},\-_$]+\.)*(?:com|net|org|edu))"
    r"(?:/[^\s\"<>|()]+[^\s\"<>|.!?(){},-])?",
    r"<?[A-Za-z0-9][^\s\"<>|()@…]*@[^\s\"<>|()@….]+(?:\.[^\s\"<>|()@….]+)*>?",
    r"@[A-Za-z_][A-Za-z0-9_]*|#[^\W\d_]+",
    r"&(?i:amp|lt|gt|quot|apos|mdash|ndash);|&#\d+;|&[aeiouAEIOU](?:acute|grave|uml);",
    r"[<>]?[:;=][-o*']?[()DdPp\\{@|\[\]O](?![A-Za-z0-9])|[\^x=~<>'-]_[\^x=~<>'-]|\(\^_\^\)",
    r"(?:\.[ \xa0]){2,}\.|\.{3,}|-{2,}|[!?]+|#+|\*+|_+|@+|<<|>>|``|''|[²³¹⁰⁴-⁹₀-₉]+|[–—―\x96\x97]",
    rf"[-.,:;/'\"`*+<>()\[\]{{}}{_SYMBOL}‘’‚‛“”„‟‹›«»\x91-\x94€¤₠\x80£¢…\x85¼½¾⅓⅔⁄]",
]
_COMPILED = [re.compile(rule) for rule in _RULES]

# Most tokens of a caption are plain words between blanks: one cheap match instead of all rules.
_PLAIN = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*(?=,? |,?$)")
_SPLIT = frozenset(["cannot", "gonna", "gotta", "lemme", "gimme", "wanna"])
_CLITIC = re.compile(f"^(n?){_Q}(s|m|d|t|re|ve|ll)$", re.IGNORECASE)
_DOTS = re.compile(r"\.(?:[ \xa0]?\.){2,}")
# Blanks that a token may reach over, or that a token before depends on: "2 1/2", "plan b. The", ". . .". What stands
# between other blanks is read on its own, and remembered: captions share most of it.
_CROSSED = re.compile(r" (?<=[\d.)] ) *(?=[\d.A-Z<])")
_LONG_TAG = re.compile(r"<[^>]* [^>]*>")
_GLUE = "\x1f"  # stands for a blank that does not separate; `_BLANKS` leaves none in a line
# Ends of line inside a caption: the reference would take them for the next caption.
_BLANKS = re.compile(r"[\t-\r\x1c-\x1f\x85\xa0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff]|&nbsp;")


def tokenize(captions: Iterable[str]) -> list[list[str]]:
    """The tokens of each caption, as the COCO evaluation counts them. A caption of nothing but punctuation has none."""
    chunks = _Chunks()
    return [_tokens(caption, chunks) for caption in captions]


class _Chunks(dict[str, list[str]]):
    """The tokens of what stands between two blanks, read once."""

    def __missing__(self, chunk: str) -> list[str]:
        word = chunk.lower()
        known = chunk.isascii() and chunk.isalpha() and word not in _SPLIT  # most are: no need to try the rules
        self[chunk] = found = [word] if known else _read(chunk.replace(_GLUE, " "))
        return found


def _tokens(caption: str, chunks: _Chunks) -> list[str]:
    line = caption
    if not caption.isprintable() or "&nbsp;" in caption:  # of all blanks only " " is printable
        line = _BLANKS.sub(" ", caption)
    if "<" in line and _LONG_TAG.search(line):
        return _read(line)
    glued = _CROSSED.sub(_glue, line)
    return list(chain.from_iterable(map(chunks.__getitem__, glued.split(" "))))


def _glue(blanks: re.Match[str]) -> str:
    return _GLUE * len(blanks[0])


def _read(line: str) -> list[str]:
    words = (_written(token) for token in _scan(line))
    return [word for word in words if word not in DROPPED]


def _scan(line: str) -> Iterator[str]:
    position = 0
    while position < len(line):
        token = "" if line[position] == " " else _next(line, position)
        if token:
            yield token
        position += len(token) or 1  # a blank, or a character that the reference drops too


def _next(line: str, position: int) -> str:
    plain = _PLAIN.match(line, position)
    if plain is not None and plain[0].lower() not in _SPLIT:
        return plain[0]
    matches = [match for rule in _COMPILED if (match := rule.match(line, position))]
    if not matches:
        return ""
    best = max(matches, key=re.Match[str].end)
    return next((group for group in best.groups() if group), best[0])


def _written(token: str) -> str:
    """A token as the reference prints it."""
    if token in _REPLACED:
        return _REPLACED[token]
    if token.startswith("--") or _DOTS.fullmatch(token):
        return "--"
    if not token[0].isalnum():
        token = token.replace("(", "-lrb-").replace(")", "-rrb-")
        token = token if token.strip("'`") else "'"
    token = _CLITIC.sub(r"\1'\2", token)
    return token.replace("&AMP;", "&").replace("&amp;", "&").replace("\xad", "").replace(" ", "\xa0").lower()
