"""Names, places, verbs and answer sets of the twenty bAbI tasks.

Source: the published bAbI v1.2 data (Weston et al., arXiv 1502.05698) and the
label sets that BABILong (arXiv 2406.10149) scores with.
"""

TASKS = tuple(f"qa{i}" for i in range(1, 21))
# Their rules were recovered from the published data and are tested against its
# statistics. The other tasks have the published sentences, questions and
# answers, but how often each occurs is our choice.
MEASURED = ("qa1", "qa2", "qa3", "qa4", "qa5")

ROOMS = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
PLACES = ("bedroom", "cinema", "kitchen", "office", "park", "school")
OBJECTS = ("apple", "football", "milk")
PEOPLE = ("Mary", "John", "Daniel", "Sandra")
GIVERS = ("Bill", "Fred", "Jeff", "Mary")
VISITORS = ("Bill", "Fred", "Julie", "Mary")
PRONOUNS = {"Mary": "she", "Sandra": "she", "John": "he", "Daniel": "he"}

MOVES = ("went to", "journeyed to", "travelled to", "went back to", "moved to")
GETS = ("got", "took", "grabbed", "picked up")
DROPS = ("dropped", "discarded", "left", "put down")
GIVES = ("gave", "passed", "handed")
COUNTS = ("none", "one", "two", "three")
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}
SPECIES = ("cat", "mouse", "sheep", "wolf")
COLOURS = ("gray", "green", "white", "yellow")

_YES_NO = ("no", "yes")
_PATHS = tuple(
  f"{one},{two}"
  for one in "nesw"
  for two in "nesw"
  if {one, two} not in ({"n", "s"}, {"e", "w"})
)
LABELS = {
  **dict.fromkeys(("qa1", "qa2", "qa3", "qa4"), ROOMS),
  "qa5": ("Bill", "Fred", "Jeff", "Mary", *OBJECTS),
  **dict.fromkeys(("qa6", "qa9", "qa17", "qa18"), _YES_NO),
  "qa7": COUNTS,
  "qa8": (*OBJECTS, "nothing"),
  "qa10": ("maybe", *_YES_NO),
  **dict.fromkeys(("qa11", "qa12", "qa13"), ROOMS),
  "qa14": PLACES,
  "qa15": SPECIES,
  "qa16": COLOURS,
  "qa19": _PATHS,
  "qa20": (
    "bedroom",
    "bored",
    "garden",
    "hungry",
    "kitchen",
    "thirsty",
    "tired",
  ),
}
