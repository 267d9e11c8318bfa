"""Words for the labels of songs: data of `captions`.

A label's own word comes first. Words may be vague (an organ, a sax) but never another label's
alone. Players and ensembles carry their article; instruments get theirs where they are used.
"""

INSTRUMENTS = {
    "piano": ("piano", "grand piano", "acoustic piano", "pianoforte"),
    "harpsichord": ("harpsichord", "harpsicord", "cembalo", "clavecin"),
    "vibraphone": ("vibraphone", "vibes", "vibraharp"),
    "marimba": ("marimba", "marimbas"),
    "dulcimer": ("dulcimer", "hammered dulcimer", "hammer dulcimer"),
    "church organ": ("church organ", "organ", "pipe organ", "cathedral organ"),
    "reed organ": ("reed organ", "harmonium", "pump organ", "organ"),
    "accordion": ("accordion", "accordian", "squeezebox", "squeeze box"),
    "harmonica": ("harmonica", "mouth organ", "blues harmonica", "harmonika"),
    "nylon guitar": ("nylon guitar", "guitar", "classical guitar", "acoustic guitar"),
    "steel guitar": ("steel guitar", "guitar", "acoustic guitar", "steel-string guitar"),
    "double bass": ("double bass", "upright bass", "bass", "contrabass"),
    "electric bass": ("electric bass", "bass guitar", "bass"),
    "violin": ("violin", "fiddle"),
    "viola": ("viola",),
    "cello": ("cello", "violoncello", "chello"),
    "pizzicato strings": ("pizzicato strings", "plucked strings", "pizzicato", "strings"),
    "harp": ("harp", "concert harp", "pedal harp"),
    "string section": ("string section", "strings", "orchestral strings", "bowed strings"),
    "choir": ("choir", "chorus", "choral singing", "singing"),
    "voice": ("voice", "vocals", "singing", "singing voice"),
    "trumpet": ("trumpet", "brass trumpet", "trumpit"),
    "trombone": ("trombone", "slide trombone"),
    "tuba": ("tuba", "bass tuba"),
    "french horn": ("french horn", "horn", "orchestral horn"),
    "soprano saxophone": ("soprano saxophone", "soprano sax", "sax", "saxophone"),
    "alto saxophone": ("alto saxophone", "alto sax", "sax", "saxophone"),
    "tenor saxophone": ("tenor saxophone", "tenor sax", "sax", "saxaphone"),
    "baritone saxophone": ("baritone saxophone", "bari sax", "baritone sax", "sax"),
    "oboe": ("oboe", "obo"),
    "bassoon": ("bassoon", "basoon", "fagott"),
    "clarinet": ("clarinet", "clarinette", "clarinett"),
    "piccolo": ("piccolo", "piccolo flute", "picolo", "small flute"),
    "flute": ("flute", "concert flute", "transverse flute"),
    "recorder": ("recorder", "wooden recorder", "blockflute"),
    "banjo": ("banjo", "five-string banjo", "bluegrass banjo"),
    "drums": ("drums", "drum kit", "drum set", "percussion"),
}
# Have no plural and take no article.
MASS = ("percussion", "pizzicato", "singing", "choral singing")
# Who plays, where it is not a "player".
PERSONS = {
    "piano": "pianist",
    "harpsichord": "harpsichordist",
    "church organ": "organist",
    "reed organ": "organist",
    "accordion": "accordionist",
    "nylon guitar": "guitarist",
    "steel guitar": "guitarist",
    "violin": "fiddler",
    "flute": "flutist",
    "clarinet": "clarinetist",
    "oboe": "oboist",
    "banjo": "banjoist",
}
ENSEMBLES = {
    "solo": (
        "solo {one}",
        "a solo {one}",
        "a lone {one}",
        "a single {one}",
        "{one} alone",
        "{one} by itself",
        "{one} on its own",
        "unaccompanied {one}",
        "a unaccompanied {one}",
        "one {person}",
    ),
    "duo": ("a duo", "a duet", "two players", "two instruments", "a pair of players", "a twosome"),
    "trio": ("a trio", "three players", "three instruments", "a group of three", "a threesome"),
    "folk band": (
        "a folk band",
        "a folk group",
        "a four-piece band",
        "a little band",
        "a band",
    ),
    "mixed quartet": (
        "a mixed quartet",
        "a quartet",
        "four different instruments",
        "a chamber group",
        "four players",
    ),
    "choir": (
        "a choir",
        "a chorus",
        "a group of singers",
        "a vocal ensemble",
        "a cappella singers",
        "people singing together",
        "many voices",
    ),
    "string quartet": (
        "a string quartet",
        "four string players",
        "a group of four strings",
        "two violins, a viola and a cello",
        "a quartet of strings",
    ),
    "string quintet": (
        "a string quintet",
        "five string players",
        "a group of five strings",
        "a quintet of strings",
    ),
    "string orchestra": (
        "a string orchestra",
        "a orchestra of strings",
        "a string ensemble",
        "lots of strings",
        "a big string section",
    ),
    "brass quartet": (
        "a brass quartet",
        "four brass players",
        "a brass group",
        "a small brass band",
    ),
    "brass quintet": (
        "a brass quintet",
        "five brass players",
        "a brass group",
        "a small brass band",
    ),
    "woodwind quartet": (
        "a woodwind quartet",
        "a wind quartet",
        "four woodwinds",
        "a group of wind instruments",
    ),
    "woodwind quintet": (
        "a woodwind quintet",
        "a wind quintet",
        "five wind players",
        "a group of wind instruments",
    ),
    "saxophone quartet": (
        "a saxophone quartet",
        "a sax quartet",
        "four saxophones",
        "four saxes",
        "a group of saxophones",
    ),
    "guitar quartet": (
        "a guitar quartet",
        "four guitars",
        "a group of guitars",
        "a guitar ensemble",
        "four guitarists",
    ),
    "recorder consort": (
        "a recorder consort",
        "a recorder group",
        "a group of recorders",
        "a recorder ensemble",
        "several recorders",
    ),
    "mallet quartet": (
        "a mallet quartet",
        "four mallet players",
        "a mallet group",
        "vibes and marimbas",
    ),
}
# Adjectives, and phrases that follow what is played.
TEMPO = {
    "slow": (
        *("slow", "unhurried", "leisurely", "slow-paced", "adagio", "largo", "lento"),
        *("downtempo", "drawn-out", "calm", "very relaxed"),
    ),
    "moderate": (
        *("moderate", "mid-tempo", "medium-paced", "moderately paced", "medium-tempo"),
        *("andante", "moderato", "steady", "medium-speed"),
    ),
    "fast": (
        *("fast", "lively", "quick", "brisk", "rapid", "fast-paced", "up-tempo"),
        *("allegro", "presto", "vivace", "energetic", "speedy"),
    ),
}
PACE = {
    "slow": ("at a slow pace", "in a slow tempo", "slowly", "taking its time", "without any hurry"),
    "moderate": (
        *("at a moderate pace", "at a medium tempo", "at a walking pace"),
        *("neither fast nor slow", "not too fast and not too slow"),
    ),
    "fast": ("at a quick pace", "in a fast tempo", "at high speed", "quickly", "with a rapid beat"),
}
# The first two are of the key, the others of the mood: minor is called sad and major happy by
# convention, whatever the piece.
MODE = {
    "major": (
        *("major", "major-key", "happy", "cheerful", "bright", "joyful"),
        *("sunny", "uplifting", "merry", "positive"),
    ),
    "minor": (
        *("minor", "minor-key", "sad", "melancholy", "melancholic", "mournful"),
        *("dark", "gloomy", "sorrowful", "sombre", "wistful", "tragic"),
    ),
    "dorian": ("dorian", "modal"),
    "mixolydian": ("mixolydian", "modal"),
}
KEY = {
    "major": ("in major", "in a major key", "with a happy mood", "with a bright feel"),
    "minor": ("in minor", "in a minor key", "with a sad mood", "with a dark feel"),
    "dorian": ("in the dorian mode", "in an old mode"),
    "mixolydian": ("in the mixolydian mode", "in an old mode"),
}
FORMS = {
    "chorale": ("chorale", "hymn", "hymn tune", "sacred piece"),
    "quartet movement": ("movement", "chamber piece", "chamber work"),
    "madrigal": ("madrigal", "part-song", "song"),
}  # of the dances: their name, or
DANCES = ("tune", "dance tune", "dance")
ANY_FORM = ("piece", "piece of music", "instrumental")
GENRES = {
    "baroque": ("baroque", "church", "baroque-style"),
    "classical": ("classical", "classical-style", "classical-era"),
    "renaissance": ("renaissance", "early", "old"),
    "folk": ("folk", "traditional", "folky"),
}
SETTINGS = {
    "baroque": ("for church", "for a service", "in a church setting"),
    "classical": ("for a concert hall", "for a salon", "for a recital"),
    "renaissance": ("for a court", "from long ago", "for an old palace"),
    "folk": ("for dancing", "for a barn dance", "for a pub session", "for a country dance"),
}
BY = {
    "bach": ("by Johann Sebastian Bach", "by Bach", "by J. S. Bach"),
    "mozart": ("by Mozart", "by Wolfgang Amadeus Mozart"),
    "haydn": ("by Haydn", "by Joseph Haydn"),
    "beethoven": ("by Beethoven", "by Ludwig van Beethoven"),
    "monteverdi": ("by Monteverdi", "by Claudio Monteverdi"),
    "traditional": ("from the folk tradition", "of the folk tradition", "from a old tune book"),
}
