"""The plots of the stories: each a chain of beats from a wish or a mishap through causes to an ending.

Slots: ``{hero}``, ``{friend}`` ("the fox"), ``{a_friend}``, ``{at}`` ("by the river"), ``{place}`` ("the river"),
``{obj}`` (the bare noun), ``{an_obj}`` (with article and look), pronouns ``{he} {him} {his}`` of the hero and
``{fhe} {fhim} {fhis}`` of the friend. ``[one|other]`` is a choice. A beat is a list of wordings.
"""

from __future__ import annotations

from typing import NamedTuple


class Plot(NamedTuple):
    """A plot: the objects it can use (empty: any), its beats in order and its lessons."""

    objects: tuple[str, ...]
    beats: tuple[tuple[str, ...], ...]
    lessons: tuple[str, ...]


OPENINGS = (
    "Once upon a time, there was {a_hero} who lived [near|close to|not far from] {place}.",
    "Once upon a time, {a_hero} lived {at}.",
    "Once upon a time, {a_hero} went to {place}.",
    "Once upon a time, there was {a_hero}. {hero} [loved|liked] to [play|walk|sit|sing|rest] {at}.",
    "There was once {a_hero} who [loved|liked] {place} [very much|more than any other place].",
    "One [day|morning|evening|afternoon], {a_hero} was {at}.",
    "Long ago, {a_hero} lived {at}.",
    "[On a warm day in spring|On a cold day in winter|One day in summer|One day in autumn], {a_hero} came to {place}.",
)

SCENES: dict[str, tuple[str, ...]] = {
    "happy": (
        "[The sun was shining|The sky was blue|The birds were singing], and {hero} felt [happy|full of joy|very cheerful].",
        "It was a [bright|lovely|beautiful] day, and {hero} [smiled|laughed|sang a happy song].",
    ),
    "sad": (
        "[Grey clouds hung in the sky|Rain was falling|The wind was cold], and {hero} felt [sad|a little sad|very lonely].",
        "{hero} felt [lonely|sad|unhappy] that day, and {his} heart was heavy.",
    ),
    "funny": (
        "{hero} wore [two different shoes|a pot on {his} head|a very long coat], and everyone [laughed|giggled].",
        "{hero} [always walked backwards|liked to dance on one leg|sneezed at every flower], and that looked very funny.",
    ),
    "brave": (
        "{hero} wanted to have [a big adventure|an adventure|a real adventure], because every day was the same.",
        "{hero} dreamed of [great deeds|big adventures], but {he} had never had [an adventure|a chance to be brave].",
    ),
    "calm": (
        "It was a [quiet|calm|peaceful] day, and a soft wind was blowing.",
        "Everything was [quiet|still|peaceful], and {hero} listened to the [leaves|wind|birds].",
    ),
    "spooky": (
        "[It was dark|The moon was thin|A cold fog was rising], and a strange sound came from [the shadows|the dark|far away].",
        "[No one liked to go there at night|Everyone said that the place was haunted], because [strange lights|strange shadows] had been seen.",
    ),
}

CLOSINGS: dict[str, tuple[str, ...]] = {
    "happy": (
        "From that day on, {hero} and {friend} were [best friends|the best of friends|always happy together].",
        "And they lived happily ever after.",
        "{hero} went home [with a big smile|happy and tired|singing], and it had been the best day of all.",
    ),
    "sad": (
        "{hero} still [cried|was sad] sometimes, but now {he} was not alone any more.",
        "In the end {hero} wiped away {his} tears, because {friend} stayed with {him}.",
        "It was a sad day, but {hero} never forgot how kind {friend} had been.",
    ),
    "funny": (
        "They laughed so [hard|much] that they [fell over|could not stop until the evening|got a tummy ache].",
        "Everyone laughed, and {hero} laughed the loudest of all.",
        "And whenever they thought of it, they [giggled|laughed] all over again.",
    ),
    "brave": (
        "From that day on, everyone called {hero} a [hero|real hero].",
        "{hero} was proud, because {he} had been [brave|braver than ever before].",
        "That was the [biggest|greatest] adventure of {his} life, and {he} told everyone about it.",
    ),
    "calm": (
        "Then {hero} [lay down|curled up], closed {his} eyes and slept [well|peacefully] all night.",
        "The stars came out one by one, and everything was [quiet|peaceful] again.",
        "{hero} and {friend} sat together [in silence|quietly] until the sun went down.",
    ),
    "spooky": (
        "Since that night, {hero} has never been afraid of the dark again.",
        "The fog went away, the moon came out, and {place} was not spooky any more.",
        "Some say that at night you can still hear {hero} and {friend} laughing {at}.",
    ),
}

PLOTS: tuple[Plot, ...] = (
    Plot(
        (),
        (
            (
                "{hero} had {an_obj} that {he} [loved very much|took everywhere|never gave away].",
                "The thing {he} loved most was {an_obj}.",
            ),
            (
                "But one day [the wind blew it away|it fell out of {his} bag|{he} left it in the grass], and the {obj} was gone.",
                "But then {he} ran too fast and fell, and when {he} got up, the {obj} was gone.",
            ),
            (
                "{hero} looked [everywhere|under every stone|behind every tree], but {he} could not find it, so {he} began to cry.",
                "{he} searched [all day|for hours], but because it was getting dark, {he} could not see anything.",
            ),
            (
                '{a_friend} heard {him} and [asked|said], "[Why are you crying?|What is wrong?|What happened?]" "I have lost my {obj}," said {hero}.',
                'Then {a_friend} came by. "I will help you," said {friend}, because {fhe} [was kind|had good eyes|knew the place well].',
            ),
            (
                "Together they looked again, and {friend} found the {obj} under [a bush|an old log|a pile of leaves].",
                "{friend} [looked closely|climbed up high], saw something shine, and there was the {obj}.",
            ),
            (
                "{hero} was so [glad|happy] that {he} [hugged|thanked] {friend}.",
                '"Thank you!" said {hero} and [hugged|thanked] {friend}.',
            ),
        ),
        ("Two friends find more than one.", "It is good to ask for help."),
    ),
    Plot(
        (),
        (
            (
                "While {he} was walking, {hero} found {an_obj} [in the grass|on the ground|under a stone].",
                "There, [behind a tree|between two stones|in a dark corner], lay {an_obj}.",
            ),
            (
                '"What a [nice|fine|lovely] {obj}! I want to keep it," said {hero}.',
                "{hero} put the {obj} into {his} bag, because {he} had always wanted one.",
            ),
            (
                'But soon {he} met {a_friend} who was [crying|very sad|looking for something]. "I have lost my {obj}," said {friend}.',
                'A little later {a_friend} came along and asked, "Have you seen my {obj}? I miss it so much."',
            ),
            (
                "{hero} [wanted to say no|did not know what to do], but {he} saw how sad {friend} was.",
                "{hero} felt [sorry|bad], because the {obj} was not {his_own}.",
            ),
            (
                'So {he} gave the {obj} back. "Here it is," {he} said.',
                'So {he} said, "I found it. Please take it," and gave {friend} the {obj}.',
            ),
            (
                "{friend} was so [happy|glad] that {fhe} shared {fhis} [lunch|cake|bread] with {hero}.",
                '{friend} [jumped for joy|smiled] and said, "You are honest. Will you be my friend?" "Yes," said {hero}.',
            ),
        ),
        ("Being honest is worth more than any {obj}.", "A friend is better than a {obj}."),
    ),
    Plot(
        ("rope", "ladder", "scarf", "blanket", "umbrella", "basket", "broom"),
        (
            (
                "That day {he} had {an_obj} with {him}.",
                "{hero} was carrying {an_obj}, because {he} wanted to take it home.",
            ),
            ('Suddenly {he} heard a cry. "Help! Help!"', 'Then someone called, "Please help me!"'),
            (
                "{a_friend} had fallen into a [deep hole|deep pit] and could not get out.",
                "It was {a_friend} who had slipped and was stuck in the mud.",
            ),
            (
                "{hero} tried to pull, but {he} was not strong enough.",
                "{hero} thought for a moment, because {his} arms were too short.",
            ),
            (
                "Then {he} had an idea. {he} held out the {obj}, and {friend} held on to it.",
                '"Hold on to my {obj}!" called {hero} and pulled as hard as {he} could.',
            ),
            (
                "Slowly, slowly, {friend} came up and was safe.",
                'At last {friend} was free. "You saved me," {fhe} said.',
            ),
        ),
        ("A good idea can be stronger than strong arms.", "Help others, and they will help you."),
    ),
    Plot(
        ("lantern", "candle", "lamp", "torch", "whistle", "bell", "map"),
        (
            (
                "But there was one thing: {hero} was afraid of the dark.",
                "{hero} had a secret: {he} was scared of the night.",
            ),
            (
                "One night {a_friend} did not come home, so someone had to look for {fhim}.",
                "One evening {he} heard that {a_friend} was lost.",
            ),
            (
                "{hero} was [shaking|scared], but {he} took {an_obj} and went out.",
                '"I must go," said {hero}. {he} took {an_obj} and started to walk.',
            ),
            (
                "It was very dark {at}, and something [moved|rustled] in the bushes. {hero} wanted to run away.",
                "The shadows looked like monsters, but {hero} kept walking, because {friend} needed {him}.",
            ),
            (
                "Thanks to the {obj}, {hero} found {friend}, who was sitting under a tree.",
                "{hero} held the {obj} tight and called, and {friend} answered from behind a rock.",
            ),
            (
                "Together they went home, and the dark was not so bad any more.",
                '"You came!" cried {friend}. They walked home hand in hand.',
            ),
        ),
        ("To be brave is to be afraid and to go anyway.", "Nobody is afraid when a friend is near."),
    ),
    Plot(
        (),
        (
            (
                "{a_friend} lived there too, and both wanted the same thing: {an_obj}.",
                "{hero} and {a_friend} found {an_obj} at the same time.",
            ),
            (
                '"It is mine!" said {hero}. "No, it is mine!" said {friend}.',
                "They [quarrelled|argued] about the {obj}, because each of them wanted to have it.",
            ),
            (
                "They pulled and pulled until the {obj} [broke|fell down and broke].",
                "{hero} pulled on one side and {friend} on the other side, and then the {obj} broke.",
            ),
            ("Now nobody had a {obj}, and both were very sad.", "It was quiet. Both of them looked at the ground."),
            (
                '"I am sorry," said {hero}. "I am sorry too," said {friend}.',
                '"That was silly of us," said {friend}, and {hero} nodded.',
            ),
            (
                "So they mended the {obj} together, and after that they shared it.",
                "They worked all [day|afternoon], and in the evening the {obj} was [whole|as good as new]. Now it belonged to both of them.",
            ),
        ),
        ("It is better to share than to quarrel.", "A thing that is shared is twice as nice."),
    ),
    Plot(
        (),
        (
            (
                "It was the birthday of {a_friend}, and {hero} wanted to give {fhim} a present.",
                "{hero} had {a_friend}, {his} best friend, who was ill in bed.",
            ),
            (
                "{he} had {an_obj}, but no money to buy anything else.",
                "{he} looked around at home and found only {an_obj}.",
            ),
            (
                '"It is not much," thought {hero}, but {he} cleaned the {obj} until it shone.',
                "So {he} put the {obj} into a box with a ribbon.",
            ),
            (
                "On the way it began to rain, and the box got wet, so {hero} was [worried|very unhappy].",
                "But on the way {he} fell, and there was mud on the {obj}.",
            ),
            (
                'When {friend} saw the {obj}, {fhe} began to smile. "This is just what I wanted," {fhe} said.',
                '"I am sorry that it is not better," said {hero}. But {friend} laughed. "I love it, because it comes from you."',
            ),
            (
                "They ate cake and [sang songs|played games] until the evening.",
                "Then they [drank tea|told stories] together all afternoon.",
            ),
        ),
        ("A gift from the heart is the best gift.", "It is not the price that makes a present good."),
    ),
    Plot(
        (),
        (
            (
                "Suddenly a [big|great|terrible] storm came up. [It rained and rained.|The wind howled.|Thunder rolled.]",
                "Then dark clouds came, and it started to [rain|snow] very hard.",
            ),
            (
                "{hero} had nothing with {him} but {an_obj}, and {he} was [cold|wet and cold].",
                "{he} held {his} {obj} tight and looked for a dry place.",
            ),
            (
                "{he} saw a light in a small house and knocked at the door. {a_friend} opened.",
                "At last {he} came to a cave. {a_friend} was already there.",
            ),
            (
                '"Come in," said {friend}, "it is warm here." {fhe} made [some tea|hot soup|a small fire].',
                '"You may stay here with me," said {friend}, because {fhe} did not like to be alone in a storm.',
            ),
            (
                "All night they told each other stories, so they forgot the storm.",
                "They sat close together, and because they talked, the night was short.",
            ),
            (
                "In the morning the sun was back, and {hero} gave {friend} the {obj} to say thank you.",
                'When the storm was over, {hero} said, "Please take my {obj}. You have been so kind."',
            ),
        ),
        ("After every storm the sun comes back.", "A warm heart is the best shelter."),
    ),
    Plot(
        (),
        (
            (
                "One day {he} found a small door {at}. It was locked.",
                "{at} there was an old door that nobody had ever opened.",
            ),
            ("Beside it lay {an_obj} with strange signs on it.", "On the ground in front of it was {an_obj}."),
            (
                "When {hero} [touched|picked up|lifted] the {obj}, the door opened [slowly|with a creak|all by itself].",
                "{hero} knocked with the {obj} three times, and the door opened.",
            ),
            (
                "Behind it {he} saw {a_friend} who had been shut in for [a hundred years|a long time] by a spell.",
                'Inside sat {a_friend}. "You have broken the spell," said {friend}, "so now I am free."',
            ),
            (
                '"Who are you?" asked {hero}. "I am the keeper of the {obj}," said {friend}.',
                "{friend} was so grateful that {fhe} granted {hero} one wish.",
            ),
            (
                '{hero} did not want gold. {he} only wished for a friend, and {friend} said, "You have one now."',
                '"I wish that we can be friends," said {hero}, and the wish came true.',
            ),
        ),
        ("Some doors open only for those who are curious.", "The best wishes cost nothing."),
    ),
    Plot(
        (),
        (
            (
                "{hero} wanted to learn to [swim|dance|sing|juggle|whistle], but it was very hard.",
                "There was going to be a big race, and {hero} wanted to win {an_obj}, the prize.",
            ),
            (
                "Everyone laughed at {him} because {he} [was so slow|fell down all the time].",
                '"You will never do it," said {a_friend}, and {hero} was sad.',
            ),
            (
                "But {he} did not give up. Every day {he} [practised|tried again] {at}.",
                "So {he} got up early every morning and practised {at}.",
            ),
            (
                "On the big day {he} saw {a_friend} who had hurt {fhis} foot, so {hero} stopped to help.",
                "When the day came, {a_friend} fell down in front of {him}. {hero} stopped and helped {fhim} up.",
            ),
            (
                "Because of that {he} came last, but everyone clapped for {him}.",
                "They came in together, side by side, and the crowd cheered.",
            ),
            (
                '"You have won something better," said {friend} and gave {him} {an_obj}.',
                '{friend} gave {him} {an_obj} and said, "This is for the one with the kindest heart."',
            ),
        ),
        ("Those who do not give up have already won.", "To be kind is better than to be first."),
    ),
    Plot(
        (),
        (
            (
                "{hero} wanted to build [a house|a boat|a bridge|a tower], but {he} had only {an_obj}.",
                '"I will build [a little boat|a tree house|a small house] all by myself," said {hero}. {he} took {an_obj} and began.',
            ),
            (
                "{he} worked all day, but in the night the wind came and everything fell down.",
                "It looked good at first, but because {he} had been in a hurry, it broke into pieces.",
            ),
            (
                "{hero} was so [angry|sad] that {he} threw the {obj} away and sat down.",
                '"I can not do it," sighed {hero} and put the {obj} down.',
            ),
            (
                '{a_friend} had watched {him}. "You must go slowly," said {friend}. "I will show you."',
                'Then {a_friend} came by and picked up the {obj}. "Let us try together," {fhe} said.',
            ),
            (
                "{friend} held the wood, {hero} used the {obj}, and step by step it grew.",
                "So they started again, one [held|carried] and one [tied|hammered], and this time it was strong.",
            ),
            (
                "When the wind came again, nothing moved at all.",
                "In the evening it was finished, and it did not fall down.",
            ),
        ),
        ("Good work takes time and good friends.", "What we build together stays."),
    ),
    Plot(
        (),
        (
            (
                "{hero} had only one piece of bread and {an_obj}.",
                "In {his} bag {he} had some bread, an apple and {an_obj}.",
            ),
            (
                'Then {a_friend} came. "I am so hungry," said {friend}, "I have not eaten for two days."',
                "On the way {he} met {a_friend} who was very thin and very hungry.",
            ),
            (
                "{hero} was hungry too, but {he} gave {friend} half of the bread.",
                "{hero} did not think long and shared {his} food.",
            ),
            (
                "The next day {hero} lost {his} way, and {his} {obj} fell into deep water.",
                "A week later {hero} got into trouble: a [big wave|thief] took {his} {obj}.",
            ),
            (
                "But {friend} [saw it|was near], and because {hero} had been so kind, {fhe} brought the {obj} back.",
                'Then {friend} came running. "You helped me, so now I help you," {fhe} said and got the {obj} back.',
            ),
            ("They laughed and ate together.", '"Now we are even," said {hero}, and both laughed.'),
        ),
        ("Kindness always comes back.", "What you give returns to you."),
    ),
    Plot(
        (),
        (
            (
                "One night {hero} could not sleep, so {he} took {his} {obj} and went for a walk {at}.",
                "{hero} lay awake, because the moon was so bright. {he} got up and took {an_obj} along.",
            ),
            ("There {he} met {a_friend} who could not sleep either.", "{at} sat {a_friend} and looked at the stars."),
            (
                '"What are you doing?" asked {hero}. "I am counting the stars," said {friend}, "but I always lose count."',
                '"I am waiting for a shooting star," said {friend}, "because I want to make a wish."',
            ),
            (
                "{hero} sat down and made marks on the {obj}, one for each star, so that they would not forget.",
                "They put the {obj} between them and waited, and {hero} told a story about it.",
            ),
            (
                "Suddenly a star fell. Both closed their eyes and wished for the same thing: a friend.",
                "After a hundred stars, their eyes grew heavy, and {hero} gave {friend} the {obj} as a pillow.",
            ),
            (
                '"Now I can sleep," said {hero}. "So can I," said {friend}.',
                '"Good night," whispered {friend}. "Good night," said {hero}.',
            ),
        ),
        ("A night with a friend is never too long.", "Quiet things are often the most beautiful."),
    ),
    Plot(
        (),
        (
            (
                "{hero} planted a tiny seed [in the ground|in the earth] and put {an_obj} beside it, so that {he} would find the place again.",
                "One day {hero} found a seed under {an_obj} and planted it.",
            ),
            (
                "{he} gave it water every day, but nothing happened, so {hero} became impatient.",
                "{hero} waited and waited, but no leaf came out, and {he} was disappointed.",
            ),
            (
                '"Why does it not grow?" {he} asked {a_friend}. "It needs time," said {friend}.',
                '"Seeds sleep for a long time," said {a_friend}. "Sing to it, and wait."',
            ),
            (
                "So {hero} and {friend} sang to the seed [every evening|each morning].",
                "{hero} sat down beside the {obj} and told the seed a story every night.",
            ),
            (
                "Then, after a warm rain, a green leaf came out of the ground, and soon there was a [tall|big|beautiful] flower.",
                "One morning there was a little tree, because the rain and the sun had done their work.",
            ),
            (
                '"Look!" cried {hero}. {friend} smiled and hung the {obj} on it.',
                "Everyone came to see it, and {hero} was very proud.",
            ),
        ),
        ("Good things need time.", "Whoever can wait will be rewarded."),
    ),
    Plot(
        (),
        (
            (
                "Every night there was a strange noise {at}, and nobody could sleep.",
                "Then {hero} heard a strange noise: knock, knock, knock.",
            ),
            (
                "Everyone said that it was a [monster|ghost|dragon], so they were all afraid.",
                '"It must be a [monster|ghost|dragon]," people said and locked their doors.',
            ),
            (
                "But {hero} was curious, so {he} took {an_obj} and went to look.",
                "{hero} wanted to know the truth. With {an_obj} in {his} hand, {he} went closer.",
            ),
            (
                "There {he} saw no monster at all, but {a_friend} who was crying and knocking on a box.",
                "Behind a bush sat {a_friend} and made the noise with a stick.",
            ),
            (
                '"Why do you make so much noise?" asked {hero}. "I am lonely," said {friend}, "and no one ever comes to see me."',
                '"I am sorry," said {friend}. "I only want to learn music, but I have no one to teach me."',
            ),
            (
                "{hero} gave {friend} the {obj} and promised to come every day, so the nights were quiet again.",
                "So {hero} stayed and played with {fhim}, and from then on everybody could sleep.",
            ),
        ),
        ("Many monsters are only lonely.", "Look closely before you are afraid."),
    ),
    Plot(
        (),
        (
            (
                "A stranger came to {place}. It was {a_friend}, and nobody wanted to talk to {fhim}.",
                "One day {a_friend} arrived, and because {fhe} looked different, everyone was afraid of {fhim}.",
            ),
            (
                '"Stay away," people said. But {hero} thought, "Perhaps {friend} is only shy."',
                "{hero} was a little afraid too, but {he} also felt sorry for {fhim}.",
            ),
            (
                'So {he} took {an_obj} and went over. "Hello," said {hero}, "would you like to play with me?"',
                '{hero} went to {friend} and showed {fhim} {an_obj}. "Do you want to see it?" {he} asked.',
            ),
            (
                "{friend} was so surprised that {fhe} could not speak at first.",
                "{friend} smiled for the first time since {fhe} had come.",
            ),
            (
                "Then {fhe} showed {hero} a wonderful trick with the {obj}.",
                "It turned out that {friend} knew the best games with a {obj} in the whole world.",
            ),
            (
                "Soon all the others came and wanted to join in, and nobody was afraid any more.",
                "The others saw how much fun they had, so they came too, one after another.",
            ),
        ),
        ("A stranger is a friend you do not know yet.", "A kind word opens every door."),
    ),
    Plot(
        (),
        (
            (
                '{hero} got a letter from {a_friend} who lived far away. "Please bring me {an_obj}," it said.',
                "{hero} had to bring {an_obj} to {a_friend} before the sun went down.",
            ),
            (
                "The way was long, so {he} left early in the morning.",
                '"I will be quick," said {hero} and started to run.',
            ),
            (
                "But [the bridge was broken|a big tree lay across the path], so {he} had to go around {place}.",
                "But because of the fog {he} took the wrong way and came back to {place} again.",
            ),
            (
                "{hero} was tired, and {his} feet hurt, but {he} did not stop, because {he} had given {his} word.",
                '"I must not give up," thought {hero}, "someone is waiting for me."',
            ),
            (
                'Just before dark {he} knocked at the door. "I knew that you would come!" said {friend}.',
                "When the first star came out, {he} arrived, and {friend} was already standing at the gate.",
            ),
            (
                "{friend} took the {obj}, made a warm bed for {hero} and cooked a big supper.",
                "{hero} gave {friend} the {obj}, and they celebrated with cake and songs.",
            ),
        ),
        ("A promise is a promise.", "Step by step you reach every goal."),
    ),
    Plot(
        (),
        (
            (
                "{hero} was bored, so {he} took away {an_obj} that was not {his_own}.",
                "{hero} liked to play tricks, and one day {he} hid {an_obj} that was not {his_own}.",
            ),
            (
                "It was the {obj} of {a_friend}, and {friend} looked for it all day.",
                "{a_friend} needed the {obj} for {fhis} work, so {fhe} was very worried.",
            ),
            (
                "At first {hero} [laughed|giggled], but then {he} saw that {friend} had tears in {fhis} eyes.",
                "{hero} wanted to laugh, but it did not feel funny any more.",
            ),
            (
                "In the night {he} could not sleep, because {his} heart was so heavy.",
                "{his} tummy began to hurt, because {he} knew that {he} had done something wrong.",
            ),
            (
                'So {he} went to {friend} and said, "I took your {obj}. I am very sorry."',
                "The next morning {hero} gave back the {obj} and told the truth.",
            ),
            (
                "{friend} was angry for a moment, but then {fhe} forgave {him}, and they shook hands.",
                '"Thank you for telling me," said {friend}. "Now help me with my work." And {hero} did.',
            ),
        ),
        ("The truth makes the heart light.", "A joke is only good when everyone can laugh."),
    ),
    Plot(
        (),
        (
            (
                "{hero} and {a_friend} found an old map that showed a treasure {at}.",
                '"There is a treasure {at}," said {a_friend}. "Let us look for it!"',
            ),
            (
                "They dug and dug, but all they found was {an_obj}.",
                "They searched behind every stone until they found a box. In it was only {an_obj}.",
            ),
            (
                '{hero} was disappointed. "That is not a treasure," {he} said.',
                '"No gold!" said {hero} sadly, and {he} sat down on the ground.',
            ),
            (
                'But {friend} looked at the {obj} closely. There were words on it: "The treasure is not far."',
                '"Wait," said {friend}. "Look, there is something written on the {obj}." It said: "Look beside you."',
            ),
            (
                "{hero} turned around, but there was nobody except {friend}.",
                "They looked left and right, but because they were alone, they only saw each other.",
            ),
            (
                'Then {he} understood and laughed. "You are my treasure," said {hero}.',
                '"Now I know," said {hero}. "A friend is the treasure."',
            ),
        ),
        ("Friends are worth more than gold.", "The best treasure is often very near."),
    ),
)
