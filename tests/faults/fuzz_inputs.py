"""Override strings and recipes, by a grammar and by mutation, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

_WORDS = """
1 0 -1 1e-4 1e999 -.5 +3 007 0x10 1_000 9999999999999999999999 .inf .nan nan inf true false True yes no null ~
auto none lora head full linear mlp digits train test validation 0.1 0.999 1.0 balanced cosine accuracy
package:digits evaluate:x ../x /etc/passwd ~/x $HOME ${HOME} %s {} [] \u0663 \uff11 ^ -- --x = a=b a.b
"""
_SCALARS = (*_WORDS.split(), "", " ", "\u2028")
_QUOTED = ("''", '""', "'a'", '"b"', '"\\x00"', '"\\ud800"', '"\\UFFFFFFFF"', '"\\u2028"', "'it''s'", '"un', "'un")
_SYNTAX = ("&a ", "*a", "!!python/name:os.system ", "!x ", "<<: ", "? ", "- ", "---\n", "...\n", "%YAML 1.2\n", "\t",
           "\x00", "\x85", "\ufeff", "\r", "#", "|\n", ">-\n", "[", "]", "{", "}", ",", ": ", "\n", "\\", "'", '"',
           "\ud800", "\U0001f600", "\u202e", "\x1b[31m")  # fmt: skip


class Inputs:
    """Makes inputs.

    Args:
        seed: of everything drawn.
        keys: dotted paths that recipes have.
        texts: recipes to mutate.
        usual: of some keys, values that recipes give them.
    """

    def __init__(
        self, seed: int, keys: Sequence[str], texts: Sequence[str], usual: Mapping[str, Sequence[str]]
    ) -> None:
        self.draw = random.Random(seed)
        self.keys, self.texts, self.usual = list(keys), list(texts), dict(usual)

    def override(self) -> str:
        """A `key=value`, or something that looks a little like one."""
        kind = self.draw.random()
        if kind < 0.03:
            return self._junk(self.draw.choice((3, 30, 300)))
        key = self.draw.choice(self.keys)
        if kind > 0.7:
            key = self.draw.choice(list(self.usual))
            return f"{key}={self.draw.choice(self.usual[key])}"
        if kind < 0.25:
            key = self._mutated(key)
        elif kind < 0.3:
            key = f"{key}.{self._word()}"
        value = self.value(0)
        if self.draw.random() < 0.1:
            value = self._mutated(value)
        return f"{key}{self.draw.choice(('=', '=', '=', '=', '=', '=', '=', '', '==', ' = '))}{value}"

    def value(self, depth: int) -> str:
        """YAML in one line."""
        kind = self.draw.random()
        if kind < 0.6 or depth > 3:
            return self.draw.choice(_SCALARS)
        if kind < 0.7:
            return self.draw.choice(_QUOTED)
        if kind < 0.75:
            return self._junk(self.draw.choice((1, 5, 50)))
        items = [self.value(depth + 1) for _ in range(self.draw.randrange(4))]
        if kind < 0.87:
            return f"[{', '.join(items)}]"
        return "{" + ", ".join(f"{self._word()}: {item}" for item in items) + "}"

    def recipe(self) -> str:
        """A recipe with one to six things changed."""
        text = self.draw.choice(self.texts)
        for _ in range(self.draw.choice((1, 1, 1, 2, 3, 6))):
            text = self._changed(text)
        return text

    def _changed(self, text: str) -> str:
        lines = text.split("\n")
        place = self.draw.randrange(len(lines))
        kind = self.draw.randrange(9)
        if kind == 0:
            del lines[place]
        elif kind == 1:
            lines.insert(place, self.draw.choice(lines))
        elif kind == 2:
            lines[place] = " " * self.draw.randrange(7) + lines[place].lstrip()
        elif kind == 3:
            path = self.draw.choice(self.keys).split(".")
            indent = "  " * self.draw.randrange(3)
            lines.insert(place, f"{indent}{self.draw.choice(path)}: {self.value(0)}")
        elif kind == 4:
            key, colon, _ = lines[place].partition(":")
            lines[place] = f"{key}{colon or ':'} {self.value(0)}"
        elif kind == 5:
            lines.append(f"{self.draw.choice(self.keys).split('.')[0]}: {self.value(0)}")
        elif kind == 6:
            lines[place] = self._mutated(lines[place])
        elif kind == 7:
            lines.insert(place, f"{self._word()}: {self.value(0)}")
        else:
            whole = "\n".join(lines)
            at = self.draw.randrange(len(whole) + 1)
            return whole[:at] + self.draw.choice(_SYNTAX) + whole[at:]
        return "\n".join(lines)

    def _mutated(self, text: str) -> str:
        letters = list(text)
        for _ in range(self.draw.randrange(1, 4)):
            at = self.draw.randrange(len(letters) + 1)
            kind = self.draw.randrange(4)
            if kind == 0:
                letters.insert(at, self.draw.choice((".", "-", "_", "\u00e4", "0", *_SYNTAX)))
            elif letters and kind == 1:
                del letters[min(at, len(letters) - 1)]
            elif letters and kind == 2:
                letters[min(at, len(letters) - 1)] = chr(self.draw.randrange(32, 127))
            elif letters:
                at = min(at, len(letters) - 1)
                letters[at] = letters[at].swapcase()
        return "".join(letters)

    def _word(self) -> str:
        if self.draw.random() < 0.7:
            return self.draw.choice(self.keys).rpartition(".")[2]
        return self.draw.choice(("a", "b", "kind", "flip", "x y", "", "0", "__class__", "\u00e4", "a.b"))

    def _junk(self, length: int) -> str:
        pieces = (chr(self.draw.choice((self.draw.randrange(128), self.draw.randrange(0x3000)))) for _ in range(length))
        return "".join(pieces)
