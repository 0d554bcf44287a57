# SPDX-License-Identifier: MIT
"""Small defects that a C source could have: each a place and what stands there instead.

The source is read as tokens, so that comments, strings and preprocessor lines stay as they are, and only inside the
bodies of functions. Left out is what cannot matter: hints to the compiler, and what is printed in messages.

A mutant is named by its file, its function and its line with the change marked in it, `if (n ⟦<|<=⟧ most)`: so it keeps
its name when lines above it come and go.
"""
import dataclasses
import re

KINDS = {
    "relation": "a bound that is one off, or a comparison turned round",
    "logic": "and for or, or for and, a negation left out, true for false",
    "number": "a constant that is one too large, plus for minus",
    "statement": "a statement left out",
    "wake": "a statement left out that wakes somebody, or tells them to look",
    "order": "a weaker memory order",
}

TOKEN = re.compile(r"""
    (?P<comment>/\*.*?\*/|//[^\n]*) | (?P<directive>^[ \t]*\#(?:\\\n|/\*.*?\*/|[^\n])*) |
    (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*') | (?P<name>[A-Za-z_]\w*) | (?P<number>0[xX][0-9a-fA-F]+[uUlL]*|\d+[uUlL]*) |
    (?P<operator><<=|>>=|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|[-+*/%&|^~!<>=?:;,.(){}\[\]]) | (?P<space>\s+)
    """, re.X | re.S | re.M)

SWAPS = {"<": ("relation", "<="), "<=": ("relation", "<"), ">": ("relation", ">="), ">=": ("relation", ">"),
         "==": ("relation", "!="), "!=": ("relation", "=="), "&&": ("logic", "||"), "||": ("logic", "&&"),
         "true": ("logic", "false"), "false": ("logic", "true"), "+=": ("number", "-="), "-=": ("number", "+="),
         "xi_store_release": ("order", "xi_store_relaxed"), "xi_store_full": ("order", "xi_store_release"),
         "xi_load_acquire": ("order", "xi_load_relaxed"), "xi_load_full": ("order", "xi_load_relaxed"),
         "memory_order_acquire": ("order", "memory_order_relaxed"), "memory_order_release": ("order", "memory_order_relaxed"),
         "memory_order_acq_rel": ("order", "memory_order_relaxed"), "memory_order_seq_cst": ("order", "memory_order_relaxed")}
# Calls of which the arguments from this one on (0: all) say nothing about what the program does.
QUIET = {"__builtin_expect": 1, "__builtin_prefetch": 0, "xi_fail": 1, "snprintf": 0, "static_assert": 0}
NOT_STATEMENTS = {"return", "if", "for", "while", "do", "switch", "case", "default", "else", "goto", "continue", "struct",
                  "enum", "union", "static", "const", "unsigned", "int", "char", "bool", "void", "sizeof", "extern"}
DECLARATION = re.compile(r"[A-Za-z_]\w*\s+\**\s*[A-Za-z_]\w*\s*[=;,\[]|[A-Za-z_]\w*\s+_Atomic\b", re.S)
WAKES = re.compile(r"\b\w*(?:wake|ring_some|bell|pass_on|tell_owner|mark_ready|cond_broadcast|cond_signal)\w*\(|\bring\(")


@dataclasses.dataclass(frozen=True)
class Token:
    sort: str
    text: str
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Mutant:
    path: str
    function: str
    kind: str
    line: int
    start: int
    end: int
    after: str
    marked: str  # its line, with the change marked

    @property
    def name(self):
        return f"{self.path} | {self.function} | {self.kind} | {self.marked}"

    def applied(self, text):
        return text[:self.start] + self.after + text[self.end:]


def tokens_of(text):
    at, found = 0, []
    while at < len(text):
        m = TOKEN.match(text, at)
        if not m:
            raise ValueError(f"no token at {text[at:at + 20]!r}")
        if m.lastgroup not in ("space", "comment", "directive"):
            found.append(Token(m.lastgroup, m.group(), m.start(), m.end()))
        at = m.end()
    return found


def closing(tokens, i):
    """The index of the bracket that closes the one at i."""
    depth = 0
    for j in range(i, len(tokens)):
        if tokens[j].text in "([{":
            depth += 1
        elif tokens[j].text in ")]}":
            depth -= 1
            if depth == 0:
                return j
    raise ValueError("a bracket is never closed")


def bodies(tokens):
    """Each function: its name, and the indexes of its braces."""
    i = 0
    while i < len(tokens):
        if tokens[i].text != "{":
            i += 1
            continue
        end = closing(tokens, i)
        if i and tokens[i - 1].text == ")":
            depth, j = 0, i - 1
            while True:
                depth += {")": 1, "(": -1}.get(tokens[j].text, 0)
                if depth == 0:
                    break
                j -= 1
            yield tokens[j - 1].text, i, end
        i = end + 1


def quiet_places(tokens):
    """The indexes of the tokens that say nothing about what the program does."""
    quiet = set()
    for i, t in enumerate(tokens[:-1]):
        if t.text not in QUIET or tokens[i + 1].text != "(":
            continue
        end, depth, argument = closing(tokens, i + 1), 0, 0
        for j in range(i + 1, end + 1):
            depth += (tokens[j].text in "([{") - (tokens[j].text in ")]}")
            if tokens[j].text == "," and depth == 1:
                argument += 1
            if argument >= QUIET[t.text]:
                quiet.add(j)
    return quiet


def statements(tokens, begin, end):
    """The (first, last) tokens of each statement between two braces that is an expression or a break."""
    i, starts = begin + 1, {begin + 1}
    while i < end:
        t = tokens[i]
        if t.text in ("if", "for", "while", "switch") and tokens[i + 1].text == "(":
            starts.add(closing(tokens, i + 1) + 1)
        elif t.text in ("else", "do", "{", "}", ";"):
            starts.add(i + 1)
        elif t.text in ("case", "default"):
            while tokens[i].text != ":":
                i += 1
            starts.add(i + 1)
        if t.text == "for": # the semicolons in its head end no statements
            i = closing(tokens, i + 1)
        i += 1
    for first in sorted(s for s in starts if s < end):
        t = tokens[first]
        if t.text in NOT_STATEMENTS or not (t.sort == "name" or t.text in ("(", "*", "++", "--")):
            continue
        depth, last = 0, first
        while last < end and (tokens[last].text != ";" or depth):
            depth += (tokens[last].text in "([{") - (tokens[last].text in ")]}")
            if depth < 0:
                break
            last += 1
        if last < end and tokens[last].text == ";" and last > first:
            yield first, last


def one_more(text):
    digits = re.match(r"0[xX][0-9a-fA-F]+|\d+", text).group()
    value = int(digits, 8 if re.fullmatch("0[0-7]+", digits) else 0) + 1 # where it was octal it is a number all the same
    return (hex(value) if digits[:2] in ("0x", "0X") else str(value)) + text[len(digits):]


def changes(tokens, begin, end, quiet):
    """(first token, last token, kind, what stands there instead) for one function."""
    for i in range(begin + 1, end):
        t, before = tokens[i], tokens[i - 1]
        if i in quiet:
            continue
        if t.text in SWAPS:
            yield i, i, *SWAPS[t.text]
        elif t.sort == "number":
            yield i, i, "number", one_more(t.text)
        elif t.text == "!":
            yield i, i, "logic", ""
        elif t.text in "+-" and (before.sort in ("name", "number") or before.text in ")]") and before.text != "return":
            yield i, i, "number", "-" if t.text == "+" else "+"


def mutants_of(path, text):
    tokens = tokens_of(text)
    quiet = quiet_places(tokens)
    found, seen = [], {}

    def add(function, first, last, kind, after):
        start, stop = tokens[first].start, tokens[last].end
        left = text.rfind("\n", 0, start) + 1
        right = text.find("\n", stop)
        before = " ".join(text[start:stop].split())
        marked = f"{text[left:start].lstrip()}⟦{before}|{after}⟧{text[stop:right].rstrip()}"
        again = seen[function, kind, marked] = seen.get((function, kind, marked), 0) + 1
        marked += f" (place {again})" if again > 1 else ""
        found.append(Mutant(path, function, kind, text.count("\n", 0, start) + 1, start, stop, after, marked))

    for function, begin, end in bodies(tokens):
        for first, last, kind, after in changes(tokens, begin, end, quiet):
            add(function, first, last, kind, after)
        for first, last in statements(tokens, begin, end):
            said = text[tokens[first].start:tokens[last].end]
            if not DECLARATION.match(said):
                add(function, first, last, "wake" if WAKES.search(said) else "statement", ";")
    return sorted(found, key=lambda m: (m.start, m.end))
