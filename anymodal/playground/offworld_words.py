"""Word lists of the questions that lie outside the playground's world. No word here names a thing of that world."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.replace("\n", ",").split(",") if part.strip())


LEXICON: dict[str, tuple[str, ...]] = {key: _words(text) for key, text in {
    "animal": """
dog, cat, elephant, horse, cow, sheep, pig, goat, chicken, duck, goose, mouse, rabbit, fox, wolf, bear, lion, tiger,
leopard, zebra, giraffe, monkey, gorilla, kangaroo, koala, panda, camel, deer, moose, squirrel, hedgehog, otter,
seal, whale, dolphin, shark, salmon, goldfish, octopus, crab, lobster, turtle, snake, lizard, crocodile, frog, toad,
spider, ant, bee, wasp, butterfly, moth, beetle, snail, worm, parrot, pigeon, eagle, owl, penguin, swan, crow, puppy,
kitten, pony, donkey, hamster, bird, fish, insect""",
    "person": """
man, woman, boy, girl, child, baby, teacher, doctor, nurse, farmer, soldier, policeman, waiter, chef, driver, pilot,
actor, singer, dancer, painter, writer, lawyer, judge, king, queen, president, mayor, neighbour, grandmother,
grandfather, uncle, aunt, brother, sister, mother, father, cousin, friend, stranger, player, coach, plumber, builder,
gardener, student, thief, tourist, clown, person, lady, guy, kid, toddler, boss, customer""",
    "food": """
apple, banana, lemon, grape, cherry, peach, melon, strawberry, potato, tomato, carrot, onion, cabbage, mushroom,
pizza, burger, sandwich, salad, soup, pasta, rice, bread, cheese, butter, egg, sausage, steak, cake, biscuit, cookie,
pancake, pie, muffin, chocolate, ice cream, yoghurt, honey, jam, coffee, tea, milk, juice, beer, wine""",
    "vehicle": """
car, bus, truck, lorry, van, taxi, train carriage, tram, bicycle, bike, motorbike, scooter, tractor, ambulance,
fire engine, boat, ship, ferry, canoe, submarine, plane, helicopter, balloon, rocket, skateboard, wagon""",
    "item": """
table, chair, sofa, bed, lamp, shelf, cupboard, fridge, oven, kettle, cup, mug, plate, bowl, fork, spoon, knife,
bottle, glass, pan, bucket, broom, towel, pillow, blanket, mirror, curtain, carpet, window, door, key, wallet,
umbrella, backpack, suitcase, book, newspaper, letter, envelope, pencil, pen, scissors, hammer, screwdriver, ladder,
rope, candle, toy, doll, kite, laptop, keyboard, printer, television, radio, remote, charger, watch, basket, vase,
flag, sign, poster, painting, statue, bench, fence, gate, bin, tent, coin, ticket, map, bag, robot, drone""",
    "garment": """
hat, cap, coat, jacket, shirt, sweater, dress, skirt, scarf, tie, belt, glove, sock, shoe, boot, sandal,
pair of glasses, helmet, uniform, apron, jumper, suit, necklace, mask, hoodie""",
    "nature": """
tree, flower, rose, bush, leaf, grass, river, lake, sea, beach, mountain, hill, forest, desert, island, cloud, sun,
moon, sky, rainbow, volcano, waterfall, cave, rock, snowman, planet, field, road, bridge""",
    "building": """
house, church, castle, tower, school, hospital, hotel, museum, library, shop, bakery, bank, station, airport,
factory, barn, garage, stadium, theatre, restaurant, skyscraper, lighthouse, cottage, prison""",
    "room": """
kitchen, bedroom, bathroom, living room, office, garden, hallway, attic, basement, classroom, street, park, yard,
balcony, room, car park, market, playground""",
    "instrument": """
guitar, piano, violin, cello, flute, trumpet, drum, saxophone, harp, organ, banjo, clarinet, bass, singer's voice,
choir, orchestra, accordion, whistle, siren, car horn, doorbell melody, voice, thunder, barking""",
    "body": """
hand, arm, leg, foot, knee, back, head, eye, ear, nose, mouth, tooth, stomach, heart, shoulder, neck, finger, hair,
skin, throat""",
    "city": """
London, Paris, Berlin, Madrid, Rome, Vienna, Prague, Warsaw, Athens, Moscow, Tokyo, Beijing, Delhi, Cairo, Nairobi,
Lagos, New York, Chicago, Boston, Toronto, Mexico City, Lima, Sydney, Oslo, Dublin, Lisbon, Zurich, Seoul""",
    "country": """
France, Germany, Spain, Italy, Austria, Poland, Greece, Russia, Japan, China, India, Egypt, Kenya, Nigeria, America,
Canada, Mexico, Brazil, Peru, Australia, Norway, Ireland, Portugal, Switzerland, Korea, Turkey""",
    "language": """
French, German, Spanish, Italian, Portuguese, Dutch, Swedish, Polish, Russian, Turkish, Arabic, Hindi, Japanese,
Korean, Chinese, Latin, Welsh, Swahili""",
    "name": """
Anna, Ben, Carla, David, Emma, Frank, Grace, Henry, Ines, Jack, Karen, Liam, Maria, Noah, Olga, Peter, Rosa, Sam,
Tina, Victor, Wendy, Ahmed, Priya, Chen, Yuki, Fatima, Oliver, Lucy, Tom, John, Mary, Mr Smith""",
    "famous": """
Einstein, Newton, Shakespeare, Napoleon, Cleopatra, Mozart, Beethoven, Darwin, Picasso, Gandhi, Lincoln, Columbus,
Caesar, Galileo, Marie Curie, Leonardo da Vinci, Bach, Churchill, Socrates, Tolstoy""",
    "brand": """
Toyota, Apple, Samsung, Nike, Adidas, Lego, Sony, Google, Amazon, Ikea, Ford, Nokia, Coca-Cola, Pepsi""",
    "sport": """
football, tennis, cricket, rugby, golf, basketball, hockey, baseball, volleyball, chess, boxing, skiing, swimming,
cycling, badminton, table tennis, darts, sailing""",
    "material": """
wood, metal, glass, plastic, paper, stone, leather, cotton, gold, silver, rubber, wool, clay""",
    "feeling": """
happy, sad, angry, tired, bored, scared, hungry, thirsty, lonely, nervous, excited, worried, ill, lazy, jealous,
proud, sleepy, drunk, in love""",
    "adjective": """
old, young, heavy, expensive, cheap, dirty, clean, wet, dry, warm, cold, broken, new, sharp, soft, beautiful, ugly,
dangerous, famous, tall, short, fat, thin, rich, poor, clever, healthy, fresh, empty, full""",
    "verb": """
eat, drink, sleep, run, jump, swim, climb, dance, sing, shout, laugh, cry, smile, cook, bake, clean, wash, paint,
draw, write, read, study, teach, drive, ride, sail, fly, fight, hide, dig, plant, build, repair, break, throw, catch,
kick, push, pull, carry, lift, open, close, lock, buy, sell, pay, steal, give, borrow, lend, send, call, text, wave,
point, nod, sneeze, cough, yawn, breathe, bark, bite, scratch, wink, kneel, crawl, march, whistle, clap, knock, sit,
stand, wake, dream, think, guess, argue, complain, apologise, celebrate, pray, vote, joke, lie, hug, kiss, marry,
wait, leave, arrive, return, park, crash a party, win, lose, score, cheat, practise, relax, exercise, stretch, sweat""",
    "past": """
sat down, stood up, left, arrived, fell over, sneezed, laughed, shouted, cried, spoke, sang, barked, stopped,
started the engine, turned around, waved, jumped, ran away, woke up, fell asleep, opened the door, closed the window,
picked up the cup, dropped the keys, broke, caught fire, melted, exploded, honked, was parked, ate, kicked the ball,
scored, won, paid, called, drove away, took off, landed, sank, came home, smiled, coughed, clapped""",
    "base": """
sit down, stand up, leave, arrive, fall over, sneeze, laugh, shout, cry, speak, sing, bark, stop, start the engine,
turn around, wave, jump, run away, wake up, fall asleep, open the door, close the window, eat, pick up the cup,
drop the keys, break, catch fire, melt, explode, honk, kick the ball, score, win, pay, call, drive away, take off,
land, sink, come home, smile, cough, clap""",
    "ing": """
sitting down, standing up, leaving, arriving, falling over, sneezing, laughing, shouting, crying, speaking, singing,
barking, stopping, turning around, waving, jumping, running away, waking up, sleeping, opening the door,
closing the window, picking up the cup, eating, drinking, cooking, reading, smiling, dancing, swimming, driving,
writing, exploding, honking, kicking the ball, coughing, clapping, working, talking, typing, climbing the stairs""",
    "topic": """
gravity, inflation, photosynthesis, evolution, democracy, the internet, electricity, black holes, taxes,
climate change, vaccines, the stock market, football rules, quantum physics, the moon landing, Roman history, poetry,
the French Revolution, machine learning, blockchain, marriage, religion, philosophy, jazz, the weather,
nuclear power, recycling, dinosaurs, the economy, magnets, DNA, the pyramids, meditation, cooking, gardening,
space travel""",
    "illness": """
a cold, the flu, a headache, a fever, a cough, back pain, toothache, a rash, asthma, diabetes, hay fever, insomnia,
a broken arm, high blood pressure, a sore throat, migraine""",
    "code": """
Python, Java, Rust, JavaScript, SQL, C++, Go, bash, HTML, Kotlin""",
    "task": """
sort a list, reverse a string, read a file, open a socket, parse JSON, train a model, sum two numbers,
connect to a database, draw a chart, write a loop, fix a bug, rename a variable, delete a branch, send an email""",
    "app": """
lights, heating, television, radio, alarm, oven, music, fan, air conditioning, vacuum cleaner, dishwasher""",
    "day": """
Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday, tomorrow, Christmas, today, next week""",
    "unit": """
kilometres, miles, kilos, pounds, litres, dollars, euros, metres, feet, grams, hours, weeks""",
    "breed": """
breed, species, race, brand, make, model, type, age, price, weight, name, gender, nationality""",
    "worldcolor": "red, orange, yellow, green, blue, purple, pink, white",
    "othercolor": "black, brown, grey, gold, silver, beige, turquoise, cream, dark, blonde",
    "worldsize": "small, large",
    "worldobj": """
circle, square, triangle, star, cross, ring, red circle, blue square, green triangle, yellow star, white cross,
pink ring, small circle, large square, purple star, orange ring, large red square, small blue circle""",
    "worldsound": "beep, bell, rising chirp, falling chirp, noise burst, clicks",
    "worldplace": """
at the top left, at the top, at the top right, on the left, in the middle, on the right, at the bottom left,
at the bottom, at the bottom right""",
    "worlddirection": "to the left, to the right, up, down",
    "worldevent": "disappear, appear, change colour, bounce, move left, move down, collide with the star",
}.items()}

LEXICON["thing"] = tuple(dict.fromkeys(
    word for key in ("animal", "person", "food", "vehicle", "item", "nature", "building") for word in LEXICON[key]))
LEXICON["being"] = LEXICON["animal"] + LEXICON["person"]

IRREGULAR_PLURALS = {
    "man": "men", "woman": "women", "child": "children", "policeman": "policemen", "snowman": "snowmen", "foot": "feet",
    "tooth": "teeth", "mouse": "mice", "goose": "geese", "sheep": "sheep", "deer": "deer", "moose": "moose",
    "fish": "fish", "salmon": "salmon", "goldfish": "goldfish", "octopus": "octopuses", "wolf": "wolves",
    "leaf": "leaves", "shelf": "shelves", "knife": "knives", "scissors": "pairs of scissors", "thief": "thieves",
    "person": "people", "grass": "blades of grass", "bread": "loaves of bread", "rice": "bags of rice",
    "milk": "bottles of milk", "butter": "packs of butter", "honey": "jars of honey", "jam": "jars of jam",
    "pasta": "plates of pasta", "chocolate": "bars of chocolate", "cheese": "cheeses", "glass": "glasses",
}


def plural(word: str) -> str:
    """The plural of a noun of the lists."""
    if word in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[word]
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    if word.endswith(("tomato", "potato")):
        return word + "es"
    return word + "s"
