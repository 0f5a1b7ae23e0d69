"""The worked examples of BABILong's prompts, as published.

Source: the public repository of BABILong (Apache-2.0), `prompts.py`. Spelling
and missing spaces are theirs: a prompt is compared by its characters.
"""

# (facts and question, answer) of each example.
EXAMPLES = {
  "qa1": (
    (
      "Charlie went to the hallway. Judith come back to the kitchen. Charlie"
      " travelled to balcony. Where is Charlie?",
      "The most recent location of Charlie is balcony.",
    ),
    (
      "Alan moved to the garage. Charlie went to the beach. Alan went to the"
      " shop. Rouse travelled to balcony. Where is Alan?",
      "The most recent location of Alan is shop.",
    ),
  ),
  "qa2": (
    (
      "Charlie went to the kitchen. Charlie got a bottle. Charlie moved to"
      " the balcony. Where is the bottle?",
      "The bottle is in the balcony.",
    ),
    (
      "Alan moved to the garage. Alan got a screw driver. Alan moved to the"
      " kitchen. Where is the screw driver?",
      "The screw driver is in the kitchen.",
    ),
  ),
  "qa3": (
    (
      "John journeyed to the bedroom. Mary grabbed the apple. Mary went back"
      " to the bathroom. Daniel journeyed to the bedroom. Daniel moved to the"
      " garden. Mary travelled to the kitchen. Where was the apple before the"
      " kitchen?",
      "Before the kitchen the apple was in the bathroom.",
    ),
    (
      "John went back to the bedroom. John went back to the garden. John"
      " went back to the kitchen. Sandra took the football. Sandra travelled"
      " to the garden. Sandra journeyed to the bedroom. Where was the"
      " football before the bedroom?",
      "Before the bedroom the football was in the garden.",
    ),
  ),
  "qa4": (
    (
      "The hallway is south of the kitchen. The bedroom is north of the"
      " kitchen. What is the kitchen south of?",
      "bedroom",
    ),
    (
      "The garden is west of the bedroom. The bedroom is west of the"
      " kitchen. What is west of the bedroom?",
      "garden",
    ),
  ),
  "qa5": (
    (
      "Mary picked up the apple there. Mary gave the apple to Fred. Mary"
      " moved to the bedroom. Bill took the milk there. Who did Mary give the"
      " apple to?",
      "Fred",
    ),
    (
      "Jeff took the football there. Jeff passed the football to Fred. Jeff"
      " got the milk there. Bill travelled to the bedroom. Who gave the"
      " football?",
      "Jeff",
    ),
    (
      "Fred picked up the apple there. Fred handed the apple to Bill. Bill"
      " journeyed to the bedroom. Jeff went back to the garden. What did Fred"
      " give to Bill?",
      "apple",
    ),
  ),
  "qa6": (
    (
      "John travelled to the hallway. John travelled to the garden. Is John"
      " in the garden?",
      "yes",
    ),
    (
      "Mary went to the office. Daniel journeyed to the hallway. Mary went"
      " to the bedroom. Sandra went to the garden. Is Mary in the office?",
      "no",
    ),
  ),
  "qa7": (
    (
      "Daniel went to the bedroom. Daniel got the apple there. How many"
      " objects is Daniel carrying?",
      "one",
    ),
    (
      "Mary grabbed the apple there. Mary gave the apple to John. How many"
      " objects is Mary carrying?",
      "none",
    ),
    (
      "Sandra travelled to the hallway. Sandra picked up the milk there."
      " Sandra took the apple there. Mary travelled to the garden. How many"
      " objects is Sandra carrying?",
      "two",
    ),
  ),
  "qa8": (
    (
      "Sandra travelled to the garden. Mary grabbed the milk there. What is"
      " Mary carrying?",
      "milk",
    ),
    (
      "Mary travelled to the kitchen. Sandra travelled to the office. John"
      " travelled to the office. Sandra discarded the milk there. What is"
      " Sandra carrying?",
      "nothing",
    ),
    (
      "Daniel grabbed the apple there. Mary went to the office. Daniel moved"
      " to the garden. Daniel grabbed the milk there. Mary went to the"
      " kitchen. What is Daniel carrying?",
      "apple,milk",
    ),
  ),
  "qa9": (
    (
      "John is not in the bathroom. Sandra is not in the bedroom. Is John in"
      " the bathroom?",
      "no",
    ),
    (
      "Mary journeyed to the kitchen. John is in the bedroom. Sandra is not"
      " in the garden. Is Mary in the kitchen?",
      "yes",
    ),
  ),
  "qa10": (
    (
      "Bill is in the kitchen. Julie is either in the school or the cinema."
      " Is Bill in the bedroom?",
      "no",
    ),
    (
      "Fred is in the bedroom. Mary is either in the school or the cinema."
      " Is Mary in the school?",
      "maybe",
    ),
    (
      "Fred is either in the kitchen or the park. Bill moved to the cinema."
      " Is Bill in the cinema?",
      "yes",
    ),
  ),
  "qa11": (
    (
      "Daniel journeyed to the hallway. After that he journeyed to the"
      " garden. Where is Daniel?",
      "garden",
    ),
    (
      "Mary moved to the office. Afterwards she journeyed to the kitchen."
      " Daniel went to the hallway. Then he journeyed to the garden. Where is"
      " Mary?",
      "kitchen",
    ),
    (
      "Sandra moved to the kitchen. After that she went back to the hallway."
      " Sandra moved to the bedroom. Then she went to the hallway. Mary moved"
      " to the bedroom. Afterwards she travelled to the bathroom. Where is"
      " Sandra?",
      "hallway",
    ),
  ),
  "qa12": (
    (
      "Mary and Daniel travelled to the bathroom. John and Daniel travelled"
      " to the office. Where is Daniel?",
      "office",
    ),
    (
      "Sandra and Mary went back to the office. Daniel and Sandra went to"
      " the bedroom. Sandra and Mary travelled to the hallway. John and Mary"
      " went to the kitchen. Where is Mary?",
      "kitchen",
    ),
    (
      "Daniel and Sandra went back to the hallway. Daniel and John moved to"
      " the office. Daniel and John moved to the garden. Daniel and Mary went"
      " back to the bathroom. Daniel and John went back to the kitchen."
      " Daniel and Sandra went to the bathroom. Where is John?",
      "kitchen",
    ),
  ),
  "qa13": (
    (
      "Mary and Daniel travelled to the bathroom. Then they journeyed to the"
      " hallway. Where is Daniel?",
      "hallway",
    ),
    (
      "Daniel and Sandra travelled to the kitchen. After that they journeyed"
      " to the hallway. Mary and Daniel travelled to the bedroom. After that"
      " they travelled to the hallway. Where is Sandra?",
      "hallway",
    ),
    (
      "John and Mary moved to the bathroom. Then they travelled to the"
      " office. John and Mary went to the kitchen. Afterwards they went to"
      " the bedroom. John and Sandra moved to the bathroom. Following that"
      " they went back to the kitchen. Where is Mary?",
      "bedroom",
    ),
  ),
  "qa14": (
    (
      "Bill went back to the cinema yesterday. Julie went to the school this"
      " morning. Fred went to the park yesterday. Yesterday Julie went to the"
      " office. Where was Julie before the school?",
      "office",
    ),
    (
      "This morning Fred went to the kitchen. Fred journeyed to the bedroom"
      " yesterday. Mary travelled to the bedroom this morning. Yesterday Mary"
      " went to the cinema. Where was Mary before the bedroom?",
      "cinema",
    ),
    (
      "Yesterday Julie went back to the park. Julie went to the bedroom this"
      " morning. Bill journeyed to the cinema yesterday. This morning Bill"
      " went back to the park. This evening Julie went to the school. This"
      " afternoon Julie went back to the park. Where was Julie before the"
      " bedroom?",
      "park",
    ),
  ),
  "qa15": (
    (
      "Mice are afraid of wolves. Gertrude is a mouse. Cats are afraid of"
      " sheep. Winona is a mouse. Sheep are afraid of wolves. Emily is a"
      " mouse. Jessica is a wolf. What is gertrude afraid of?",
      "wolf",
    ),
    (
      "Mice are afraid of wolves. Gertrude is a mouse. Cats are afraid of"
      " sheep. Winona is a mouse. Sheep are afraid of wolves. Emily is a"
      " mouse. Jessica is a wolf. What is jessica afraid of?",
      "cat",
    ),
    (
      "Mice are afraid of cats. Wolves are afraid of sheep. Emily is a wolf."
      " Cats are afraid of sheep. Gertrude is a wolf. Sheep are afraid of"
      " cats. Winona is a wolf. What is emily afraid of?",
      "sheep",
    ),
  ),
  "qa16": (
    (
      "Lily is a frog. Bernhard is a frog. Bernhard is green. Brian is a"
      " lion. Brian is white. Julius is a swan. Julius is green. Lily is"
      " green. Greg is a swan. What color is Greg?",
      "green",
    ),
    (
      "Julius is a lion. Lily is a rhino. Bernhard is a swan. Lily is white."
      " Bernhard is green. Greg is a rhino. Greg is gray. Julius is white."
      " Brian is a lion. What color is Brian?",
      "white",
    ),
    (
      "Brian is a rhino. Julius is a lion. Bernhard is a lion. Greg is a"
      " swan. Brian is gray. Greg is white. Lily is a rhino. Bernhard is"
      " yellow. Lily is gray. What color is Julius?",
      "yellow",
    ),
  ),
  "qa17": (
    (
      "The triangle is above the pink rectangle. The blue square is to the"
      " left of the triangle. Is the pink rectangle to the right of the blue"
      " square?",
      "yes",
    ),
    (
      "The red sphere is to the left of the yellow square. The red sphere is"
      " below the pink rectangle. Is the pink rectangle to the left of the"
      " yellow square?",
      "yes",
    ),
    (
      "The red sphere is above the pink rectangle. The red sphere is to the"
      " right of the red square. Is the pink rectangle above the red square?",
      "no",
    ),
  ),
  "qa18": (
    (
      "The box of chocolates fits inside the chest. The box is bigger than"
      " the chest. The box is bigger than the suitcase. The suitcase fits"
      " inside the box. The container is bigger than the box of chocolates."
      " Does the box fit in the box of chocolates?",
      "no",
    ),
    (
      "The suitcase is bigger than the container. The container fits inside"
      " the box. The chest is bigger than the chocolate.The suitcase fits"
      " inside the box. The chest fits inside the box. Does the chocolate fit"
      " in the box?",
      "yes",
    ),
    (
      "The chocolate fits inside the box of chocolates. The suitcase fits"
      " inside the box. The chocolate fits inside the box. The box is bigger"
      " than the box of chocolates. The suitcase is bigger than the box of"
      " chocolates. Is the chocolate bigger than the box?",
      "no",
    ),
  ),
  "qa19": (
    (
      "The office is east of the hallway. The kitchen is north of the"
      " office. The garden is west of the bedroom. The office is west of the"
      " garden. The bathroom is north of the garden. How do you go from the"
      " kitchen to the garden?",
      "s,e",
    ),
    (
      "The bedroom is west of the hallway. The office is east of the garden."
      " The garden is north of the kitchen. The kitchen is north of the"
      " bathroom. The hallway is west of the garden. How do you go from the"
      " kitchen to the hallway?",
      "n,w",
    ),
    (
      "The bedroom is south of the hallway. The bathroom is east of the"
      " office. The kitchen is west of the garden. The garden is south of the"
      " office. The office is south of the bedroom. How do you go from the"
      " garden to the bedroom?",
      "n,n",
    ),
  ),
  "qa20": (
    (
      "Sumit is tired. Where will sumit go?",
      "bedroom",
    ),
    (
      "Yann is hungry. Yann journeyed to the kitchen. Why did yann go to the"
      " kitchen?",
      "hungry",
    ),
    (
      "Antoine is thirsty. Yann is tired. Yann went back to the bedroom."
      " Yann picked up the pajamas there.Jason is thirsty. Antoine went back"
      " to the kitchen. Why did antoine go to the kitchen?",
      "thirsty",
    ),
  ),
}
