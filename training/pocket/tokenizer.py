"""The pocket reasoner's closed vocabulary: characters, and one token for each fixed phrase of a task.

Phrases as single tokens keep prompts short, so that the small model spends its layers on the task.
"""

import string

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from training.pocket.tasks import ANIMALS

PAD, UNKNOWN, START, END, THINK, END_THINK = SPECIAL = (
    "<|endoftext|>",
    "<|unknown|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
)

PHRASES = (
    "State the final answer to the following arithmetic problem: ",
    "Your task is to count how many legs there are in total when given a list of animals.\n\n"
    "Now, how many legs are there in total if you have ",
    "How many 1 bits are there in the binary representation of the number ",
    'How many times does the letter "',
    '" appear in the text: "',
    "Spell this word backward (example: sun -> nus): ",
    "Solve the following multiplication: ",
    ". Give only the result as your final answer.",
    "A::B is a system with 4 tokens: `A#`, `#A`, `B#` and `#B`.\n\n"
    "An A::B program is a sequence of tokens. Example:\n\n    B# A# #B #A B#\n\n"
    "To *compute* a program, we must rewrite neighbor tokens, using the rules:\n\n"
    "    A# #A ... becomes ... nothing\n    A# #B ... becomes ... #B A#\n"
    "    B# #A ... becomes ... #A B#\n    B# #B ... becomes ... nothing\n\n"
    "In other words, whenever two neighbor tokens have their '#' facing each-other,\n"
    "they must be rewritten according to the corresponding rule.\n\n"
    "Now, consider the following program:\n\n",
    "\n\nReturn the final state of the program.\n",
    "Keep all numbers larger than ",
    "Keep all numbers smaller than ",
    "Remove all numbers larger than ",
    "Remove all numbers smaller than ",
    " in this list: ",
    "\nReturn the new list in the same format.",
    "Add the complex numbers: ",
    "Subtract the complex numbers: ",
    "Sort these numbers in ascending order: ",
    "Sort these numbers in descending order: ",
    "\nPlease follow the instruction below:\n"
    "## 1. Let all your answers be a list of numbers. Instead of reporting your answer as "
    "-69, -13, 1, 7, 11, 43, 59, 61, use ['-69', '-13', '1', '7', '11', '43', '59', '61'] instead\n"
    "## 2. Convert all numbers in the square brackets as strings. "
    "For example, ['-69', '-13', '1', '7', '11', '43', '59', '61']\n",
    *("A#", "#A", "B#", "#B", " A#", " #A", " B#", " #B"),
    *(" + ", " - ", " * ", " =", ", ", "?\n", "['", "', '", "']", "[]", ".0"),
)


def build() -> Tokenizer:
    """A word-level tokenizer of `tokenizers`; a character outside the vocabulary becomes UNKNOWN."""
    plain = "\n" + "".join(c for c in string.printable if c == " " or (c.isprintable() and not c.isspace()))
    words = [*SPECIAL, *plain, *PHRASES, *ANIMALS]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token=UNKNOWN))
    # The regex takes the first alternative that matches, so a phrase must precede its own beginning.
    longest_first = sorted((*PHRASES, *ANIMALS), key=len, reverse=True)
    pattern = "|".join([*map(_escape, longest_first), r"[\s\S]"])  # any character: a dot does not match a line break
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _escape(phrase: str) -> str:
    return "".join(f"\\{c}" if c in r"\^$.|?*+()[]{}#-" else c for c in phrase)
