"""The training wordings of every question type, as text blocks: one wording between bars, fields in braces.

``wordings.TEMPLATES`` is these blocks split up. A field carries its own article ("the bell rang", "a red circle")
except ``{obj}``, ``{objs}`` and ``{sound}``, which have none.
"""

TRAINING_TEXT: dict[str, str] = {
    "color": """
What colour is the {obj}? | What color is the {obj}? | Which colour is the {obj}? | Which color does the {obj} have?
Colour of the {obj}? | color of the {obj} | Tell me the colour of the {obj}. | Name the color of the {obj}.
The {obj} is what colour? | The {obj}, what color is it? | What is the colour of the {obj}?
what color the {obj} is? | Could you tell me what colour the {obj} is?
Can you tell me the color of the {obj}, please? | Please name the colour of the {obj}.
I want to know what color the {obj} is. | What colour was the {obj}? | Do you know what colour the {obj} is?
How is the {obj} colored? | In what colour is the {obj} shown? | Look at the {obj}. What color is it?
There is one {obj}. What colour does it have? | {obj} colour? | What color do you see on the {obj}?
Say which colour the {obj} is. | What's the color of that {obj}? | What colour would you call the {obj}?
The color of the {obj} is what? | What hue is the {obj}?""",
    "shape": """
What shape is the {obj}? | Which shape is the {obj}? | What is the shape of the {obj}? | Shape of the {obj}?
Tell me the shape of the {obj}. | Name the shape of the {obj}. | The {obj} has what shape? | {obj} shape?
The {obj}, what shape is it? | What kind of shape is the {obj}? | What form does the {obj} have?
Could you tell me what shape the {obj} is? | Can you say which shape the {obj} has? | what shape the {obj} is?
Please tell me the shape of the {obj}. | I would like to know the shape of the {obj}. | What shape was the {obj}?
Do you know what shape the {obj} is? | How is the {obj} shaped? | Look at the {obj}. What shape does it have?
Which shape does the {obj} have? | Say what shape the {obj} is. | What sort of shape is the {obj}?
What shape do you see for the {obj}? | The shape of the {obj} is what? | In what shape is the {obj} drawn?
What does the {obj} look like, which shape? | Describe the shape of the {obj}. | What is the {obj}, which shape?""",
    "size": """
Is the {obj} small or large? | Is the {obj} large or small? | How large is the {obj}? | What size is the {obj}?
How big is the {obj}? | Size of the {obj}? | Tell me the size of the {obj}. | What is the size of the {obj}?
The {obj}, is it small or large? | Would you say the {obj} is small or large? | {obj} size? | {obj}: large or small?
Could you tell me how large the {obj} is? | Can you tell me whether the {obj} is small or large?
Please say if the {obj} is large or small. | I want to know the size of the {obj}. | Which size is the {obj}?
Was the {obj} small or large? | Do you know what size the {obj} is? | the {obj} is large or small?
Is the {obj} a small one or a large one? | Name the size of the {obj}. | Which size does the {obj} have?
Look at the {obj}. Is it large or small? | Say how large the {obj} is. | How big would you say the {obj} is?
Does the {obj} look small or large? | what size the {obj} is? | Can you see a small {obj} or a large {obj}?
Is it a large {obj} or a small {obj}? | Is there a small {obj} or a large {obj}? | Did you see a large or a small {obj}?
Do you see a large or a small {obj}?""",
    "count": """
How many {objs} are there? | How many {objs} do you see? | Count the {objs}. | Number of {objs}? | How many {objs}?
What is the number of {objs}? | Tell me how many {objs} there are. | How many {objs} are in the clip?
How many {objs} can you see? | How many {objs} were there in all? | how many {objs} is there?
Could you tell me how many {objs} there are? | Can you count the {objs} for me? | Please count the {objs}.
I want to know how many {objs} there are. | How many {objs} did you see? | How many {objs} were shown?
Do you know how many {objs} there were? | Give me the number of {objs}. | Say how many {objs} you can see.
How many {objs} are in the picture? | The number of {objs} is what? | In total, how many {objs} are there?
How many {objs} appear in the clip? | What's the count of {objs}? | How many {objs} have you seen?
Look at the clip. How many {objs} does it have? | Count all {objs} please. | {objs}, how many?
There are how many {objs}? | How many {objs} does the clip show? | What is the total of {objs}?
Could you count how many {objs} there are? | How many different {objs} are there? | All in all, how many {objs}?""",
    "exists": """
Is there {a_obj}? | Do you see {a_obj}? | Can you see {a_obj}? | Is there {a_obj} in the clip? | Any {obj}?
Does {a_obj} appear? | Was there {a_obj}? | Did you see {a_obj}? | Is there any {obj}? | Any {obj} in the picture?
Tell me whether there is {a_obj}. | Could you tell me if there is {a_obj}? | Can you find {a_obj}?
Please tell me if you see {a_obj}. | I want to know if there is {a_obj}. | Is {a_obj} in the clip?
Do you see any {obj}? | there is {a_obj}? | Is {a_obj} shown? | Does the clip have {a_obj}?
Does the clip show {a_obj}? | Have you seen {a_obj}? | Could you see {a_obj} anywhere? | Is there {a_obj} anywhere?
Say if there is {a_obj}. | There is {a_obj}, yes or no? | Is {a_obj} there? | Look at the clip. Is there {a_obj}?
Do you know if there was {a_obj}? | {a_obj}, is there one?""",
    "place_now": """
Where is the {obj} now? | Where is the {obj} at the end? | Where is the {obj}? | Where did the {obj} end up?
Where can I find the {obj} now? | Where is the {obj} at this moment? | Location of the {obj} now? | {obj} where now?
Tell me where the {obj} is now. | In which part of the picture is the {obj} now? | where the {obj} is now?
Could you tell me where the {obj} is? | Can you tell me where the {obj} is at the end?
Please say where the {obj} is now. | I want to know where the {obj} is now. | Which place is the {obj} in now?
Where was the {obj} at the end of the clip? | Where was the {obj} last seen? | Where does the {obj} end?
What is the place of the {obj} at the end? | Name the place of the {obj} now. | The {obj} is where now?
Where on the screen is the {obj} now? | The {obj}, where is it now? | Right now, where is the {obj}?
At the end, where is the {obj}? | Which part of the picture has the {obj} at the end? | Position of the {obj} now?
Where do you see the {obj} now? | What is the last position of the {obj}? | Do you know where the {obj} is now?""",
    "place_first": """
Where was the {obj} at first? | Where was the {obj} when it was first seen? | Where did the {obj} start?
Where was the {obj} at the start? | Where was the {obj} first? | Where did the {obj} first appear?
Tell me where the {obj} was at first. | At first, where was the {obj}? | Position of the {obj} at the start?
Could you tell me where the {obj} was first seen? | Can you say where the {obj} started?
Please tell me where the {obj} was at the start. | I want to know where the {obj} started out.
In which part of the picture was the {obj} at first? | Which place was the {obj} in at first?
Where on the screen did the {obj} start? | Name the place where the {obj} was first seen. | {obj} where at first?
What was the first position of the {obj}? | Where did you first see the {obj}? | where the {obj} was at first?
The {obj}, where was it at first? | Where was the {obj} to begin with? | Do you know where the {obj} was at first?
When you first saw the {obj}, where was it? | Where was the {obj} at the beginning? | The {obj} started where?
Say where the {obj} was at the beginning. | Where did the {obj} begin?
Which part of the picture did the {obj} start in?""",
    "motion": """
Which way does the {obj} move? | In which direction does the {obj} move? | How does the {obj} move?
Which way is the {obj} moving? | What direction is the {obj} moving in? | Direction of the {obj}?
{obj} moves which way? | Where is the {obj} going? | Which way is the {obj} going?
Tell me which way the {obj} moves. | Could you tell me which way the {obj} moves?
Can you tell me the direction of the {obj}? | Please say which way the {obj} is moving.
I want to know which way the {obj} moves. | which way the {obj} go? | Name the direction of the {obj}.
What is the motion of the {obj}? | Is the {obj} moving, and which way? | The {obj}, which way does it move?
In what direction is the {obj} going? | How is the {obj} moving? | Which way did the {obj} move?
Which way did the {obj} go? | What is the direction of motion of the {obj}?
Does the {obj} move, and in which direction? | Where does the {obj} move to? | The {obj} is moving which way?
Is the {obj} going left, right, up or down? | Do you know which way the {obj} is going?
Which way does the {obj} travel? | Look at the {obj}. Which way does it go? | Say how the {obj} moves.
What motion does the {obj} have? | Which direction does the {obj} take? | Where is the {obj} headed?
The {obj} goes in which direction? | Toward which side does the {obj} move? | Say the way in which the {obj} goes.
Does the {obj} go somewhere, and where? | How would you say the {obj} moves? | Which way is the {obj} headed?""",
    "event_kind": """
What happens to the {obj}? | What happened to the {obj}? | What does the {obj} do? | What did the {obj} do?
Tell me what happens to the {obj}. | What is it that happens to the {obj}? | {obj}: what happened?
Could you tell me what happened to the {obj}? | Can you say what the {obj} did? | what happen to the {obj}?
Please tell me what the {obj} does. | I want to know what happened to the {obj}. | What goes on with the {obj}?
What became of the {obj}? | Which event happens to the {obj}? | Name the event of the {obj}.
What event does the {obj} have? | What happens with the {obj}? | The {obj}, what happens to it?
Did something happen to the {obj}, and what? | Do you know what happened with the {obj}?
What was it that the {obj} did? | Say what happens to the {obj}. | Look at the {obj}. What happens to it?
What did you see the {obj} do? | In the clip, what happens to the {obj}? | What has happened to the {obj}?
Something happens to the {obj}. What is it? | What kind of event did the {obj} have?""",
    "event_when": """
When did {base}? | At what second did {base}? | At what time did {base}? | At which moment did {base}?
Tell me when {past}. | When was it that {past}? | Time of {ing}? | What was the time when {past}?
Could you tell me when {past}? | Can you say at what second {past}? | Please tell me the time at which {past}.
I want to know when {past}. | After how many seconds did {base}? | How many seconds in did {base}?
How long did it take until {past}? | When do you see {ing}? | When did you see {base}? | when {past}?
At what point did {base}? | Give me the second when {past}. | Name the moment when {past}.
Do you know when {past}? | Which second shows {ing}? | {ing}, when was that? | {past}, but when?
When in the clip did {base}? | Say when {past}. | At what time in the clip did {base}? | On which second did {base}?
What is the time of {ing}? | How far into the clip did {base}?""",
    "color_before": """
What colour was the {obj} before it changed? | What color was the {obj} before the change? | {obj} colour before?
Which colour did the {obj} have before it changed? | What was the colour of the {obj} before it changed?
Tell me the color of the {obj} before it changed. | What colour was the {obj} at first, before changing?
Before it changed, what color was the {obj}? | Before the change, what colour was the {obj}?
Could you tell me what color the {obj} was before it changed?
Can you name the colour of the {obj} before the change? | Please tell me the colour the {obj} had before.
I want to know the color the {obj} had before it changed. | The {obj} changed colour. What was it before?
Color of the {obj} before it changed? | what color the {obj} was before? | What was the old colour of the {obj}?
Which color was the {obj} before? | What color did the {obj} start with? | The {obj} changed from which colour?
From what color did the {obj} change? | What colour did the {obj} change from? | Name the old color of the {obj}.
What was the first colour of the {obj}? | What color did the {obj} use to be?
Do you know what colour the {obj} was before it changed?
What colour did the {obj} have to begin with, before it changed? | Say the color of the {obj} before the change.""",
    "color_after": """
What colour was the {obj} after it changed? | What color was the {obj} after the change? | {obj} colour after?
Which colour did the {obj} have after it changed? | What was the colour of the {obj} after it changed?
Tell me the color of the {obj} after it changed. | What colour did the {obj} become?
What color did the {obj} turn? | After it changed, what color was the {obj}?
After the change, what colour is the {obj}? | Could you tell me what color the {obj} was after it changed?
Can you name the colour of the {obj} after the change? | Please tell me the colour the {obj} had after.
I want to know the color the {obj} had after it changed. | The {obj} changed colour. What is it now?
Color of the {obj} after it changed? | what color the {obj} become? | What was the new colour of the {obj}?
Which color did the {obj} turn to? | What color did the {obj} end with? | The {obj} changed to which colour?
To what color did the {obj} change? | What colour did the {obj} change to? | Name the new color of the {obj}.
What was the last colour of the {obj}? | Into what color did the {obj} turn?
Do you know what colour the {obj} became? | What colour did the {obj} change into?
Say the color of the {obj} after the change.""",
    "order": """
Which came first, {a_ing} or {b_ing}? | What came first: {a_ing} or {b_ing}? | Which was first, {a_ing} or {b_ing}?
Which happened first, {a_ing} or {b_ing}? | What happened first, {a_ing} or {b_ing}? | First: {a_ing} or {b_ing}?
Tell me which came first, {a_ing} or {b_ing}. | {a_ing} or {b_ing}, which came first? | {a_ing} or {b_ing} first?
Could you tell me which happened first, {a_ing} or {b_ing}? | Can you say what was first, {a_ing} or {b_ing}?
Please tell me what came first, {a_ing} or {b_ing}. | I want to know which was first, {a_ing} or {b_ing}.
Of {a_ing} and {b_ing}, which came first? | Which of these was first: {a_ing} or {b_ing}?
Which did you notice first, {a_ing} or {b_ing}? | what come first, {a_ing} or {b_ing}?
What was earlier, {a_ing} or {b_ing}? | Which was the earlier one, {a_ing} or {b_ing}?
{a_past} and {b_past}. Which came first? | {a_past} and {b_past}; what was first?
{a_past} or {b_past}, which first? | Is it that {a_past} first, or that {b_past} first?
Was it first that {a_past} or that {b_past}? | Name what came first: {a_ing} or {b_ing}.
Say which happened earlier, {a_ing} or {b_ing}. | Do you know which came first, {a_ing} or {b_ing}?
Between {a_ing} and {b_ing}, which happened first? | In which order: {a_ing} or {b_ing} first?""",
    "order_yn": """
Did {a_base} before {b_past}? | Was {a_ing} before {b_ing}? | Did {a_base} earlier than {b_ing}?
Is it true that {a_past} before {b_past}? | {a_past} before {b_past}, yes or no?
Did {a_base} first, and then {b_base}? | Tell me whether {a_past} before {b_past}.
Could you tell me if {a_past} before {b_past}? | {a_past} before {b_past}?
Can you say whether {a_past} before {b_past}? | Please tell me if {a_ing} came before {b_ing}.
I want to know if {a_past} before {b_past}. | Did {a_ing} come before {b_ing}? | {a_ing} was before {b_ing}?
Did {a_ing} happen before {b_ing}? | Is {a_ing} earlier than {b_ing}? | Was {a_ing} earlier than {b_ing}?
Is it so that {a_past} before {b_past}? | Before {b_past}, did {a_base}? | Did {b_base} only after {a_past}?
Did you notice {a_ing} before {b_ing}? | Do you think {a_past} before {b_past}?
Yes or no: {a_past} before {b_past}? | Did {a_base} sooner than {b_ing}? | Was it before {b_past} that {a_past}?
By the time {b_past}, did {a_base} already? | Was {a_ing} the first, and {b_ing} after it?
Say if {a_past} before {b_past}. | did {a_base} and after that {b_base}?""",
    "sound_what": """
What did you hear? | What sound did you hear? | Which sound did you hear? | What was the sound?
What could you hear? | What sounds are there? | Which sounds were there? | Tell me what you heard.
What can you hear? | Any sound? Which? | Could you tell me what you heard? | Can you name the sound?
Please tell me which sound you heard. | What is the sound? | I want to know what you heard. | What sound was there?
Name the sounds you heard. | What was heard? | Sounds? | What kind of sound was it?
Did you hear something, and what? | What sound was that? | what you hear? | Do you know what the sound was?
What noise did you hear? | What sounds did you hear in the clip? | Which sounds can you hear?
Listen. What do you hear? | Say what you heard. | What is there to hear? | What sounds were in the clip?
What made the noise? | Describe the sound. | What does the clip sound like?""",
    "sound_first": """
What was the first sound? | Which sound came first? | What did you hear first? | First sound?
What sound was first? | Which sound did you hear first? | Tell me the first sound. | Name the first sound.
What was the first thing you heard? | Could you tell me the first sound? | Can you name the first sound you heard?
Please tell me which sound was first. | I want to know what sound came first. | Of all the sounds, which was first?
what sound come first? | What sound does the clip begin with? | What was the earliest sound?
Which was the first of the sounds? | At first, what did you hear? | What did you hear at the start?
Do you know which sound came first? | The first sound was what? | Say which sound you heard first.
What sound did it start with? | Which sound was heard first? | What noise came first?
The sounds: which one was first? | What was heard first?""",
    "sound_last": """
What was the last sound? | Which sound came last? | What did you hear last? | Last sound? | What sound was last?
Which sound did you hear last? | Tell me the last sound. | Name the last sound. | What was the last thing you heard?
Could you tell me the last sound? | Can you name the last sound you heard? | Please tell me which sound was last.
I want to know what sound came last. | Of all the sounds, which was last? | what sound come last?
What sound does the clip end with? | What was the final sound? | Which was the last of the sounds?
At the end, what did you hear? | What did you hear at the end? | Do you know which sound came last?
The last sound was what? | Say which sound you heard last. | What sound did it end with?
Which sound was heard last? | What noise came last? | The sounds: which one was last?
What was the most recent sound?""",
    "pitch": """
Was the {sound} low or high? | Was the {sound} high or low? | Was the pitch of the {sound} low or high?
What pitch did the {sound} have? | What was the pitch of the {sound}? | Pitch of the {sound}?
{sound}: low or high? | How high was the {sound}? | Tell me the pitch of the {sound}.
Tell me if the {sound} was low or high. | Could you tell me whether the {sound} was low or high?
Can you say if the {sound} was high or low? | Please name the pitch of the {sound}.
I want to know whether the {sound} was low or high. | {sound} pitch? | Is the {sound} low or high?
Is the {sound} a high one or a low one? | Did the {sound} sound low or high?
Would you say the {sound} was low or high? | The {sound}, was it low or high? | the {sound} was low or high?
Was it a low {sound} or a high {sound}? | What kind of pitch was the {sound}? | Which pitch was the {sound}?
Was the {sound} low pitched or high pitched? | Do you know if the {sound} was high or low?
How low was the {sound}? | Did you hear a low {sound} or a high {sound}? | Say if the {sound} was high or low.""",
    "sound_when": """
When did {base}? | When did you hear the {sound}? | At what second did {base}? | At what time did {base}?
When was the {sound}? | Tell me when {past}. | When could you hear the {sound}? | Time of the {sound}?
Could you tell me when {past}? | Can you say when the {sound} was heard? | Please tell me the time at which {past}.
I want to know when {past}. | After how many seconds did {base}? | How many seconds in did you hear the {sound}?
At which moment did {base}? | When did the {sound} come? | When was the {sound} heard? | when {past}?
When did you hear {ing}? | What was the time of the {sound}? | Give me the second when {past}.
{ing}, when was that? | At what point did you hear the {sound}? | Name the moment of the {sound}.
Do you know when {past}? | The {sound} was at what second? | Say when {past}. | When in the clip is the {sound}?
{sound} when? | How far into the clip was the {sound}? | The {sound}, when did you hear it?
When did the {sound} start?""",
    "sound_while_visible": """
Was the {obj} visible when {past}? | Could you see the {obj} while {past}? | Was the {obj} there when {past}?
When {past}, was the {obj} visible? | When {past}, could you see the {obj}? | While {past}, was the {obj} in view?
Did you hear {a_sound} while the {obj} was visible? | Was there {a_sound} while the {obj} was visible?
Tell me whether the {obj} was visible when {past}. | Could you tell me if the {obj} was visible when {past}?
Can you say if the {obj} was there while {past}? | Please tell me if you could see the {obj} when {past}.
I want to know if the {obj} was visible when {past}. | Was the {obj} in the picture when {past}?
Was the {obj} on the screen while {past}? | Did you see the {obj} when you heard the {sound}?
At the time of the {sound}, was the {obj} visible? | During the {sound}, could you see the {obj}?
Was the {obj} in view during the {sound}? | While the {obj} was there, did you hear {a_sound}?
{obj} visible when {past}? | With {ing}, was the {obj} in view?
Was {a_sound} heard while the {obj} was in the picture? | Did the {sound} come while the {obj} was visible?
the {obj} was visible when {past}? | Yes or no: was the {obj} visible when {past}?
Was the {obj} shown when the {sound} was heard? | Had the {obj} been in view when {past}?
Do you know if the {obj} was there when {past}?""",
    "sound_during": """
Which sound was heard while the {obj} was visible? | What did you hear while the {obj} was visible?
What sound was there while you could see the {obj}? | Which sound came while the {obj} was there?
While the {obj} was visible, what did you hear? | What sound did you hear when the {obj} was in view?
Tell me which sound was heard while the {obj} was visible.
Name the sound heard while the {obj} was in the picture.
Could you tell me what you heard while the {obj} was visible? | Can you name the sound during the {obj}?
Please tell me the sound that came while the {obj} was there. | When you saw the {obj}, what did you hear?
I want to know what sound came while the {obj} was visible. | Sound while the {obj} was visible?
What could you hear while the {obj} was on the screen? | When the {obj} was visible, which sound was heard?
What was heard during the time the {obj} was visible? | As long as the {obj} was there, what could you hear?
With the {obj} in view, which sound did you hear? | what you hear when the {obj} is there?
Which sound goes with the {obj}? | What noise was there while the {obj} was visible? | Sound heard with the {obj}?
What sounds came while the {obj} was in the clip? | Do you know what sound was heard while the {obj} was visible?
Say what you heard while the {obj} was in view. | During the time you saw the {obj}, which sound came?""",
    "device_motion": """
How did the camera move? | What was the device doing? | What did the device do? | How was the device moving?
How was the camera held? | Was the device still or moving? | What was the motion of the device?
Motion of the camera? | Tell me how the device moved. | What happened to the device?
What was going on with the camera? | Device motion? | Could you tell me how the camera moved?
Can you say what the device was doing? | How does the device move? | Please tell me how the device was moving.
I want to know what the camera was doing. | how the camera move? | Describe the motion of the device.
In what way did the device move? | What kind of motion did the device have? | Did the device move, and how?
Name the motion of the camera. | What is the device doing? | Which motion did the camera have?
Do you know how the device was moved? | What was being done with the device? | How is the camera moving?
Say how the camera moved. | Was the camera moved, and in what way? | What were you doing with the camera?""",
    "device_when": """
When was it that {past}? | When did {base}? | At what second did {base}? | At what time did {base}?
Tell me when {past}. | At which moment did {base}? | What was the time when {past}? | when {past}?
Could you tell me when {past}? | Can you say at what second {past}? | Please tell me the time at which {past}.
I want to know when {past}. | After how many seconds did {base}? | How many seconds in did {base}? | Time of {ing}?
How long did it take until {past}? | At what point did {base}? | Give me the second when {past}.
Name the moment when {past}. | Do you know when {past}? | {ing}, when was that? | {past}, but when?
When did you notice {ing}? | When did you feel {ing}? | Say when {past}. | How far into the clip did {base}?
When in the clip did {base}? | On which second did {base}? | At what time was it that {past}?""",
    "yn_color": """
Did the {obj} have {color} colour? | Was {color} the color of the {obj}? | Does the {obj} have {color} colour?
Is the {obj} {color}? | Is the colour of the {obj} {color}? | Is the color of the {obj} {color}?
Was the {obj} {color}? | Is it true that the {obj} is {color}? | The {obj} is {color}, yes or no?
Does the {obj} look {color}? | the {obj} is {color}? | Would you say the {obj} is {color}?
Tell me whether the {obj} is {color}. | Could you tell me if the {obj} is {color}?
Can you say whether the {obj} is {color}? | Please tell me if the {obj} is {color}. | {obj} {color}?
I want to know if the {obj} is {color}. | The {obj}, is it {color}? | Is {color} the colour of the {obj}?
Do you see a {color} colour on the {obj}? | Is the {obj} {color} in colour? | Does the {obj} have the color {color}?
Do you think the {obj} is {color}? | Yes or no: is the {obj} {color}? | Is the {obj} a {color} one?
Look at the {obj}. Is it {color}? | Is that {obj} {color}? | The {obj} is {color}, right?
Say if the {obj} is {color}. | Did the {obj} look {color}?""",
    "yn_size": """
Did the {obj} have {size} size? | Does the {obj} have a {size} size?
Was the {obj} {size} in size? | Was the {obj} of {size} size?
Is the {obj} {size}? | Was the {obj} {size}? | Is the size of the {obj} {size}?
Is it true that the {obj} is {size}? | The {obj} is {size}, yes or no? | Does the {obj} look {size}?
Would you say the {obj} is {size}? | the {obj} is {size}? | Tell me whether the {obj} is {size}.
Could you tell me if the {obj} is {size}? | Can you say whether the {obj} is {size}?
Please tell me if the {obj} is {size}. | I want to know if the {obj} is {size}. | The {obj}, is it {size}?
{obj} {size}? | Is the {obj} {size} in size? | Do you think the {obj} is {size}? | Yes or no: is the {obj} {size}?
Is that {obj} {size}? | Is the {obj} a {size} one? | Look at the {obj}. Is it {size}? | The {obj} is {size}, right?
Say if the {obj} is {size}. | Did the {obj} look {size}? | Do you see that the {obj} is {size}?
Is the {obj} of {size} size?""",
    "yn_place": """
Is the {obj} {place} now? | Is the {obj} {place}? | Is the {obj} {place} at the end? | Is the {obj} now {place}?
Is it true that the {obj} is {place} now? | The {obj} is {place}, yes or no? | Did the {obj} end up {place}?
Can I find the {obj} {place}? | Tell me whether the {obj} is {place}.
Could you tell me if the {obj} is {place} now? | Can you say whether the {obj} is {place}?
Please tell me if the {obj} is {place} now. | the {obj} is {place} now?
I want to know if the {obj} is {place} now. | The {obj}, is it {place} now? | {obj} {place}?
Do you see the {obj} {place}? | Can you see the {obj} {place}? | Would you say the {obj} is {place}?
Yes or no: is the {obj} {place}? | At the end, is the {obj} {place}? | Right now, is the {obj} {place}?
Look at the {obj}. Is it {place} now? | The {obj} is {place}, right? | Is that {obj} {place} now?
Was the {obj} {place} at the end? | Say if the {obj} is {place}. | Is the last position of the {obj} {place}?""",
    "yn_motion": """
Is the {obj} moving {direction}? | Does the {obj} move {direction}? | Did the {obj} move {direction}?
Is the {obj} going {direction}? | Does the {obj} go {direction}? | Was the {obj} moving {direction}?
{obj} moving {direction}? | Is it true that the {obj} is moving {direction}?
The {obj} moves {direction}, yes or no? | the {obj} go {direction}?
Tell me whether the {obj} is moving {direction}. | Could you tell me if the {obj} moves {direction}?
Can you say whether the {obj} is going {direction}? | Please tell me if the {obj} is moving {direction}.
I want to know if the {obj} moves {direction}. | The {obj}, is it moving {direction}?
Does the {obj} travel {direction}? | Do you see the {obj} moving {direction}?
Did you see the {obj} go {direction}? | Would you say the {obj} is moving {direction}?
Yes or no: is the {obj} moving {direction}? | Is the motion of the {obj} {direction}?
Look at the {obj}. Does it move {direction}? | The {obj} is going {direction}, right?
Is that {obj} moving {direction}? | Say if the {obj} moves {direction}.
Do you think the {obj} is moving {direction}? | Is the way of the {obj} {direction}?
Was the direction of the {obj}'s motion {direction}? | Is the way the {obj} goes {direction}?
Is it {direction} that the {obj} moves?""",
    "yn_sound": """
Did you hear {a_sound}? | Was there {a_sound}? | Could you hear {a_sound}? | Is there {a_sound}?
Can you hear {a_sound}? | Was {a_sound} heard? | Is {a_sound} in the clip? | Does the clip have {a_sound}?
Did {a_sound} come? | {a_sound}, yes or no? | Is it true that there was {a_sound}? | Have you heard {a_sound}?
Tell me whether you heard {a_sound}. | Could you tell me if there was {a_sound}?
Can you say if you heard {a_sound}? | Please tell me if there is {a_sound}. | I want to know if you heard {a_sound}.
Do you hear {a_sound}? | Was {a_sound} one of the sounds? | you hear {a_sound}? | Yes or no: did you hear {a_sound}?
Listen. Is there {a_sound}? | Did you notice {a_sound}? | Was that {a_sound}? | Was {a_sound} in the clip?
Do you know if there was {a_sound}? | Say if you heard {a_sound}. | Is there the sound of {a_sound}?
Did it sound like {a_sound}? | Among the sounds, was there {a_sound}?""",
    "yn_device": """
Was the device {doing}? | Was the camera {doing}? | Is the device {doing}? | Is the camera {doing}?
Device {doing}? | Is it true that the device was {doing}? | The device was {doing}, yes or no?
the camera was {doing}? | Would you say the device was {doing}? | Tell me whether the device was {doing}.
Could you tell me if the camera was {doing}? | Can you say whether the device was {doing}?
Please tell me if the device was {doing}. | The camera, was it {doing}? | I want to know if the camera was {doing}.
Do you think the device was {doing}? | Yes or no: was the device {doing}? | Was the device {doing} at any point?
Was the camera {doing} in the clip? | At any moment, was the device {doing}? | The device was {doing}, right?
Do you know if the device was {doing}? | Say if the camera was {doing}. | Had the device been {doing}?
Was that device {doing}? | In the clip, was the device {doing}?""",
    "yn_event": """
Did {base}? | Did you see {base}? | Did {base} at any point? | Did {base} in the clip? | Did you notice {base}?
Is it true that you saw {base}? | Have you seen {base}? | Did {base}, yes or no? | Yes or no: did {base}?
Tell me whether you saw {base}. | Could you tell me if you saw {base}? | Can you say whether you saw {base}?
Please tell me: did {base}? | I want to know, did {base}? | I want to know if you saw {base}. | Does {base}?
At any moment, did {base}? | Could you see {base}? | you see {base}? | In the clip, did {base}?
Do you think you saw {base}? | Was it shown? Did {base}? | Can you see {base}? | Do you see {base}?
Say if you saw {base}. | Does {base} in the clip? | Could I see {base} in the clip? | Look at the clip. Did {base}?
Do you know, did {base}? | Did it happen that {past}? | Is it right that {past}? | Did {ing} happen?
Was {ing} in the clip? | Was there {ing}? | Have you noticed {base}? | Tell me if {past}. | {past}, right?
{past}, yes or no? | Can you confirm that {past}? | Has it happened that {past}? | Is {ing} shown?
Do you remember if {past}? | Was it seen that {past}? | Is it so that {past}? | Does it happen that {base}?
I wonder if {past}. | Is {ing} something you saw? | Was {ing} ever seen? | Anywhere in the clip, did {base}?
Is there a time when {past}? | Was there any time when {past}? | Was there ever a time that you saw {base}?
Was there some time when {past}? | Is there any second when you saw {base}?
Was there a second when you noticed {base}? | Was there once when {past}?
There was a time when {past}, right? | At some time, did you see {base}? | At any time, did {base}?
Is there a part of the clip where you see {base}? | Was there a part of the clip when {past}?
Did you at any time see {base}? | Is it shown at any time that {past}? | Did you ever see {base}?""",
    "caption": """
Describe the clip. | What is happening? | What happens in the clip? | What do you see and hear?
Tell me what happened. | Describe what you see. | Describe the picture. | What is going on?
Tell me about the clip. | What happened? | Could you tell me what is happening? | Can you describe the clip?
Please describe what happens. | what happen here? | I want to know what is going on in the clip. | What did you see?
What do you see? | Give me a description. | Describe. | What is in the clip? | What does the clip show?
Say what you see and hear. | Tell me everything you see. | Summarise the clip. | Summarize what happened.
What is this clip about? | Describe everything. | Clip description? | What was there to see and hear?
Tell me what you see. | What is in the picture? | Describe what is going on. | In a few words, what happens?
Explain what is happening. | What is shown here? | Write a caption for the clip.""",
    "describe_at": """
What is happening at {t} s? | What happens at {t} s? | What happened at {t} seconds? | Describe the clip at {t} s.
At {t} s, what is happening? | At {t} seconds, what do you see? | Tell me what happens at {t} s.
What is there at {t} s? | Could you tell me what is happening at {t} seconds?
Can you describe the moment at {t} s? | {t} s: what is happening? | Please describe what you see at {t} s.
I want to know what is going on at {t} s. | what happen at {t} s? | What was going on at {t} seconds?
What do you see and hear at {t} s? | What does the clip show at {t} s? | At {t} s?
Describe the picture at {t} seconds. | What is going on at second {t}? | Say what happens at {t} s.
{t} seconds in, what is happening? | At the time {t} s, what can you see? | What did you see at {t} s?
Describe {t} s. | What is in the picture at {t} s? | What is shown at {t} seconds? | When it is {t} s, what happens?
Tell me what you see and hear at {t} s. | Give me a description of the clip at {t} s.""",
    "nearest": """
What do you see nearest{when}? | Which object do you see closest{when}?
Of all that you see, what is nearest{when}?
Of all objects you can see, which is the closest{when}? | The closest shape that you see{when}?
Out of what can be seen, which thing is nearest{when}?
What shape is the nearest object{when}? | Which shape is nearest{when}? | What is the nearest object{when}?
Which object is nearest to the camera{when}? | What is closest to the camera{when}? | Which object is closest{when}?
What is the shape of the nearest object{when}? | Nearest object{when}? | Tell me the nearest object{when}.
Name the closest object{when}. | What is the nearest thing{when}? | Which is the nearest object{when}?
Can you tell me which object is nearest{when}? | Which thing is the closest to me{when}? | what object nearest{when}?
I want to know the shape of the closest object{when}. | Say which shape is nearest{when}. | What is nearest{when}?
By distance away, which object is first{when}? | Look at the distance. Which object is nearest{when}?
Which shape is the shortest way from the camera{when}? | The object nearest to the camera{when} is what shape?
Do you know what the closest object is{when}? | What shape does the nearest object have{when}?""",
    "hottest": """
What do you see that is hottest{when}? | Which object do you see as the warmest{when}?
Of all that you see, what is hottest{when}?
Of all objects you can see, which is the warmest{when}? | The warmest shape that you see{when}?
Out of what can be seen, which thing is hottest{when}?
What shape is the hottest object{when}? | Which shape is hottest{when}? | What is the hottest object{when}?
Which object is the hottest{when}? | What is the warmest object{when}? | Which object is warmest{when}?
What is the shape of the hottest object{when}? | Hottest object{when}? | Tell me the hottest object{when}.
Name the warmest object{when}. | What is the hottest thing{when}? | Which is the hottest object{when}?
Can you tell me which object is hottest{when}? | Which thing is the warmest{when}? | what object hottest{when}?
I want to know the shape of the warmest object{when}. | Say which shape is hottest{when}. | What is hottest{when}?
By temperature, which object is first{when}? | Look at the heat. Which object is hottest{when}?
Which shape has the highest temperature{when}? | The object with the most heat{when} is what shape?
Do you know what the warmest object is{when}? | What shape does the hottest object have{when}?""",
    "warmer": """
Is the {obj} warmer or colder{after}? | Did the {obj} get warmer or colder{after}? | Warmer or colder{after}: the {obj}?
Does the {obj} get warmer or colder{after}? | Was the {obj} warmer or colder{after}? | Is the {obj} hotter or colder{after}?
Is the {obj} colder or warmer{after}? | Did the {obj} get colder or warmer{after}? | Colder or warmer{after}: the {obj}?
Was the {obj} colder or warmer{after}? | Has the {obj} become colder or warmer{after}? | Colder or hotter{after}, the {obj}?
Tell me if the {obj} got colder or warmer{after}. | Did the {obj} cool down or warm up{after}?
Say if the {obj} gets colder or warmer{after}. | Would you say the {obj} got colder or warmer{after}?
the {obj} colder or warmer{after}? | Did the heat of the {obj} fall or rise{after}: colder or warmer?
Did the {obj} become warmer or colder{after}? | Has the {obj} become warmer or colder{after}?
Tell me if the {obj} got warmer or colder{after}. | Did the {obj} warm up or cool down{after}?
the {obj} warmer or colder{after}? | Can you tell me whether the {obj} is warmer or colder{after}?
How did the temperature of the {obj} change{after}?
I want to know if the {obj} turned warmer or colder{after}. | Say if the {obj} gets warmer or colder{after}.
Did the heat of the {obj} rise or fall{after}: warmer or colder? | In the end, was the {obj} warmer or colder{after}?
Would you say the {obj} got warmer or colder{after}? | Do you know if the {obj} is colder or warmer{after}?
What about the {obj}: warmer or colder{after}? | Which is it{after}, is the {obj} warmer or colder?""",
}
