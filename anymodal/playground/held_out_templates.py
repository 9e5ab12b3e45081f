"""Wordings that training never uses, in the form of ``question_templates``: to test whether wording matters."""

HELD_OUT_TEXT: dict[str, str] = {
    "color": """
Tell me what colour you see on the {obj}. | Which color would you say the {obj} is?
I would like to know the color of that {obj}. | What is the {obj}'s colour? | the {obj} have what color?
Can you name the colour the {obj} has? | Give me the color of the {obj}.""",
    "shape": """
Give me the shape of the {obj}. | Can you name the shape of that {obj}? | Which form has the {obj}?
What shape would you call the {obj}? | the {obj} have what shape? | Do you see which shape the {obj} is?
What is the {obj}'s shape?""",
    "size": """
Give me the size of the {obj}. | Do you see a large {obj} or a small {obj}? | the {obj} have what size?
Is that {obj} small, or is it large? | Would you call the {obj} large or small?
Can you name the size of the {obj}?""",
    "count": """
Can you say how many {objs} you saw? | What number of {objs} do you see? | I would like the number of {objs}.
Of the {objs}, how many did you see? | the clip have how many {objs}? | How many {objs} could you see in total?""",
    "exists": """
Do you notice {a_obj} in the picture? | Is any {obj} shown in the clip? | Was {a_obj} to be seen?
you see {a_obj} there? | Is it true that there is {a_obj}? | Could I find {a_obj} in the clip?""",
    "place_now": """
At the end of the clip, where can I see the {obj}? | Give me the position of the {obj} at the end.
In what place is the {obj} now? | the {obj} end where? | Can you see where the {obj} is right now?
Where in the picture did the {obj} end up?""",
    "place_first": """
Give me the position of the {obj} at the beginning. | In what place did you first see the {obj}?
the {obj} start where? | At the beginning of the clip, where was the {obj}? | From where did the {obj} start?
Where in the picture was the {obj} when you first saw it?""",
    "motion": """
Give me the direction of the {obj}. | To which part is the {obj} moving? | the {obj} move to where?
Do you see which way the {obj} goes? | What way does the {obj} move in the clip?
Can you say how the {obj} is moving?""",
    "event_kind": """
Can you describe what happens to the {obj}? | What did you notice the {obj} do? | the {obj} do what?
Give me the event of the {obj}. | What was going on with the {obj}? | In the clip, what did the {obj} do?""",
    "event_when": """
Give me the time of {ing}. | What second was it when {past}? | How long until {past}?
Can you say when you saw {base}? | At what moment was it that {past}? | In which second did {base}?""",
    "color_before": """
Give me the colour of the {obj} before it changed. | What color did you see on the {obj} before the change?
the {obj} have what colour before? | Before changing, which color was the {obj}?
What colour had the {obj} been before? | From which colour did the {obj} change?""",
    "color_after": """
Give me the colour of the {obj} after it changed. | What color did you see on the {obj} after the change?
the {obj} have what colour after? | After changing, which color was the {obj}? | Which colour did the {obj} become?
Into which colour did the {obj} change?""",
    "order": """
Can you name which one was first: {a_ing} or {b_ing}? | Which one happened earlier, {a_ing} or {b_ing}?
Did you notice first {a_ing} or {b_ing}? | What was the first to happen, {a_ing} or {b_ing}?
Which event came earlier: {a_ing} or {b_ing}? | Give me what came first, {a_ing} or {b_ing}.""",
    "order_yn": """
Was it true that {a_past} earlier than {b_ing}? | Would you say {a_past} before {b_past}?
Did {a_base} already before {b_past}? | Was {a_ing} first and then {b_ing}? | {a_ing} came before {b_ing}, right?
Do you know if {a_ing} happened before {b_ing}?""",
    "sound_what": """
What noise could you hear in the clip? | Give me the sounds. | Which noise was there? | you hear what?
Listen to the clip and name the sound. | Do you know which sound that was?""",
    "sound_first": """
Give me the first sound in the clip. | With which sound did it begin? | What sound did you hear at first?
you hear what first? | Which of the sounds was the earliest? | Listen. Which sound is first?""",
    "sound_last": """
Give me the last sound in the clip. | With which sound did it end? | What sound did you hear at the end?
you hear what last? | Which of the sounds was the final one? | Listen. Which sound is last?""",
    "pitch": """
Give me the pitch of the {sound}. | Do you think the {sound} was high or low? | the {sound} have what pitch?
Was that a high {sound} or a low one? | Which pitch did the {sound} have, low or high?
Listen to the {sound}. Is it high or low?""",
    "sound_when": """
Give me the time of the {sound}. | What second was it when {past}? | In which second was the {sound} heard?
Can you name the second when {past}? | you hear the {sound} when? | How long until {past}?""",
    "sound_while_visible": """
Do you think the {obj} was in view when {past}? | Was it while the {obj} was visible that {past}?
Say if the {obj} was there during the {sound}. | Could the {obj} be seen while {past}?
you see the {obj} when {past}? | Is it true that the {obj} was visible when {past}?""",
    "sound_during": """
Give me the sound heard while the {obj} was visible. | What noise came when the {obj} was in view?
Which sounds could you hear with the {obj} there? | During the {obj}, what sound was heard?
At the time you saw the {obj}, what was the sound? | Listen: what is heard while the {obj} is visible?""",
    "device_motion": """
Give me the motion of the device. | In which way was the camera moving? | the device do what?
Can you describe how the device moved? | Which motion did the device have?
What were you doing with the device in the clip?""",
    "device_when": """
Give me the time when {past}. | What second was it when {past}? | In which second did {base}?
Can you name the moment when {past}? | How long until {past}? | At what moment was it that {past}?""",
    "yn_color": """
Did you see that the {obj} was {color}? | Would you call the {obj} {color}? | Is the {obj} shown in {color}?
the {obj} have {color} color? | Do you know if the {obj} is {color}? | Was the color of the {obj} {color}?""",
    "yn_size": """
Did you see that the {obj} was {size}? | Would you call the {obj} {size}? | Is the {obj} {size}, would you say?
the {obj} have {size} size? | Do you know if the {obj} is {size}? | Was the size of the {obj} {size}?""",
    "yn_place": """
Do you know if the {obj} is {place} now? | Could I find the {obj} {place} at the end? | the {obj} end {place}?
Is the {obj} in the picture {place} now? | Was the {obj} last seen {place}? | Do you think the {obj} is {place} now?""",
    "yn_motion": """
Do you know if the {obj} is going {direction}? | Is the direction of the {obj} {direction}?
In the clip, does the {obj} go {direction}? | Did you notice the {obj} moving {direction}?
Was the {obj} going {direction}? | the {obj} move {direction}, yes or no?""",
    "yn_sound": """
Do you think there was {a_sound}? | Would you say you heard {a_sound}? | Was there {a_sound} to hear?
Can {a_sound} be heard? | In the clip, is there {a_sound}? | At any moment, did you hear {a_sound}?""",
    "yn_device": """
Did you notice if the device was {doing}? | Has the camera been {doing}? | Would you say the camera was {doing}?
Look at the motion. Was the device {doing}? | In the clip, is the camera {doing}?
Do you think that the camera was {doing} at any moment?""",
    "yn_event": """
Do you know if you saw {base}? | Would you say you saw {base}? | Did you see {base} at any moment?
Was there a moment when you saw {base}? | Does the clip show {base}? | At any point, did you notice {base}?""",
    "caption": """
Can you tell me everything that happens? | Give me a caption for the clip. | Say in a few words what is happening.
What can you see and hear in the clip? | Explain the clip. | what you see here?""",
    "describe_at": """
Can you say what you see at {t} s? | Give me a caption for {t} s. | What was happening at {t} seconds?
At second {t}, what is shown? | Explain what is going on at {t} s. | what you see at {t} s?""",
    "nearest": """
Give me the object nearest to the camera{when}. | Which object is the shortest distance away{when}?
What is first by distance{when}? | Can you name the closest shape{when}? | What is the nearest shape you see{when}?
Of everything you see, which one is closest{when}?""",
    "hottest": """
Give me the object with the highest temperature{when}. | Which object has the most heat{when}?
What is first by temperature{when}? | Can you name the warmest shape{when}? | What is the hottest shape you see{when}?
Of everything you see, which one is hottest{when}?""",
    "warmer": """
Give me the change of the {obj}{after}: warmer or colder? | Say whether the {obj} turned out warmer or colder{after}.
Did the temperature of the {obj} go to warmer or to colder{after}? | the {obj} get warmer or get colder{after}?
Would I find the {obj} warmer or colder{after}? | Is it warmer or is it colder{after}, the {obj}?""",
}
