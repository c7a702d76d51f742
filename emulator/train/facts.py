"""What the small models know: tables of facts, written for this project."""

from __future__ import annotations

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "Austria": "Vienna", "Switzerland": "Bern", "Belgium": "Brussels", "the Netherlands": "Amsterdam",
    "Denmark": "Copenhagen", "Sweden": "Stockholm", "Norway": "Oslo", "Finland": "Helsinki", "Iceland": "Reykjavík",
    "Ireland": "Dublin", "Poland": "Warsaw", "Hungary": "Budapest", "Greece": "Athens", "Turkey": "Ankara",
    "Egypt": "Cairo", "Kenya": "Nairobi", "Morocco": "Rabat", "India": "New Delhi", "Japan": "Tokyo",
    "China": "Beijing", "South Korea": "Seoul", "Thailand": "Bangkok", "Vietnam": "Hanoi", "Australia": "Canberra",
    "Canada": "Ottawa", "Mexico": "Mexico City", "Cuba": "Havana", "Peru": "Lima", "Chile": "Santiago",
    "Brazil": "Brasília", "Argentina": "Buenos Aires", "Colombia": "Bogotá", "Romania": "Bucharest",
    "Bulgaria": "Sofia", "the United Kingdom": "London",
}  # fmt: skip

COLOURS = {
    "the sky": "blue", "grass": "green", "snow": "white", "coal": "black", "a lemon": "yellow", "a tomato": "red",
    "an orange": "orange", "a plum": "purple", "a flamingo": "pink", "chocolate": "brown", "an elephant": "grey",
    "the sea": "blue", "a strawberry": "red", "a banana": "yellow", "a stop signal": "red", "a clear signal": "green",
    "milk": "white", "a raven": "black", "a carrot": "orange", "soot": "black",
}  # fmt: skip

OPPOSITES = {
    "hot": "cold", "fast": "slow", "big": "small", "old": "new", "open": "closed", "early": "late", "full": "empty",
    "light": "dark", "up": "down", "left": "right", "loud": "quiet", "happy": "sad", "strong": "weak", "near": "far",
    "first": "last", "wet": "dry", "day": "night", "hard": "soft",
}  # fmt: skip

WORDS = {
    ("hello", "French"): "bonjour", ("hello", "German"): "guten Tag", ("hello", "Spanish"): "¡hola!",
    ("hello", "Japanese"): "こんにちは", ("hello", "Chinese"): "你好", ("hello", "Korean"): "안녕하세요",
    ("hello", "Russian"): "привет", ("hello", "Greek"): "γειά σου", ("thank you", "French"): "merci",
    ("thank you", "German"): "danke schön", ("thank you", "Spanish"): "gracias",
    ("thank you", "Japanese"): "ありがとう", ("thank you", "Chinese"): "谢谢", ("thank you", "Korean"): "감사합니다",
    ("thank you", "Russian"): "спасибо", ("train", "French"): "le train", ("train", "German"): "der Zug",
    ("train", "Spanish"): "el tren", ("train", "Japanese"): "電車", ("train", "Chinese"): "火车",
    ("train", "Korean"): "기차", ("train", "Russian"): "поезд", ("station", "French"): "la gare",
    ("station", "German"): "der Bahnhof", ("station", "Japanese"): "駅", ("station", "Chinese"): "车站",
    ("good night", "French"): "bonne nuit", ("good night", "German"): "gute Nacht",
    ("good night", "Japanese"): "おやすみなさい", ("coffee", "French"): "un café", ("coffee", "Japanese"): "コーヒー",
    ("key", "German"): "der Schlüssel", ("bridge", "German"): "die Brücke", ("summer", "French"): "l'été",
}  # fmt: skip

EMOJI = {
    "a train": "🚂", "a rocket": "🚀", "fire": "🔥", "a cat": "🐱", "a dog": "🐶", "a heart": "❤️", "coffee": "☕",
    "rain": "🌧️", "the sun": "☀️", "the moon": "🌙", "a star": "⭐", "a key": "🔑", "a clock": "⏰", "a robot": "🤖",
    "a house": "🏠", "an apple": "🍎", "a wave": "👋", "a party": "🎉", "a family": "👨‍👩‍👧", "a flag": "🏁",
}  # fmt: skip

SOUNDS = {
    "a cat": "meow", "a dog": "woof", "a cow": "moo", "a duck": "quack", "a sheep": "baa", "a train": "choo choo",
    "a bee": "buzz", "an owl": "hoot", "a horse": "neigh", "a frog": "ribbit",
}  # fmt: skip

SERIES = {
    "the days of the week": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.",
    "the months of the year": "January, February, March, April, May, June, July, August, September, October, "
    "November and December.",
    "the four seasons": "Spring, summer, autumn and winter.",
    "the primary colours": "Red, yellow and blue.",
    "three fruits": "Apple, pear and cherry.",
    "three animals": "Cat, horse and owl.",
    "the planets": "Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune.",
    "the points of the compass": "North, east, south and west.",
    "the vowels": "A, e, i, o and u.",
    "three parts of a steam engine": "The boiler, the cylinder and the firebox.",
}

EXPLAINED = {
    "a token": "A token is a piece of text, often a word or a part of one. Models read and write tokens, not letters.",
    "a tokenizer": "A tokenizer cuts text into tokens and joins tokens into text again.",
    "an engine": "An engine is a model compiled for one kind of GPU. It is built once and then loaded many times.",
    "a gateway": "A gateway is the one door in front of many servers. It checks who you are and finds you a free engine.",
    "in-flight batching": "In-flight batching lets requests join and leave a running batch at every step. "
    "Nobody waits for the longest answer.",
    "the KV cache": "The KV cache keeps the keys and values of earlier tokens, so that each new token costs one step only.",
    "paged attention": "Paged attention stores the KV cache in small blocks, so that no memory lies idle between requests.",
    "prefix reuse": "Prefix reuse shares cached blocks between prompts that begin alike. The second prompt starts faster.",
    "prefill": "Prefill reads the whole prompt in one go and fills the cache. It decides the time to first token.",
    "decoding": "Decoding writes one token per step. It is bound by memory, so many requests share each step.",
    "chunked prefill": "Chunked prefill cuts a long prompt into pieces, so that others keep decoding between them.",
    "a batch": "A batch is a group of requests that the engine computes together.",
    "latency": "Latency is the time you wait. For chat, it is the time to first token that people feel.",
    "throughput": "Throughput is how many tokens per second all users get together.",
    "temperature": "Temperature sets how bold sampling is. Zero always takes the most likely token.",
    "top-p": "Top-p keeps the few most likely tokens whose probabilities reach p, and samples among them.",
    "top-k": "Top-k keeps the k most likely tokens and samples among them.",
    "a stop word": "A stop word is a text that ends the answer when the model writes it.",
    "a seed": "A seed fixes the random numbers, so that the same question gets the same answer.",
    "a tenant": "A tenant is a customer with keys, limits and a bill of its own.",
    "a canary": "A canary is a new version that gets a little traffic first. When it coughs, we roll back.",
    "a replica": "A replica is one loaded copy of a model. More replicas serve more users.",
    "a GPU": "A GPU is a processor that does many small sums at once. Language models live on it.",
    "Triton": "Triton is a server that hosts models and answers over HTTP and gRPC.",
    "TensorRT-LLM": "TensorRT-LLM is a library from NVIDIA that makes language models run fast on GPUs.",
    "Redis": "Redis is a small fast store. Here it remembers which models and tenants exist.",
    "quantization": "Quantization stores weights in fewer bits. The model gets smaller and faster, and a little coarser.",
    "an API key": "An API key is a secret that says who is calling. Keep it out of your code.",
    "streaming": "Streaming sends each token as soon as it is made, so that you can read along.",
    "an enginehouse": "An enginehouse is the shed where a railway keeps its engines warm, fed and ready to leave.",
    "a roundhouse": "A roundhouse is an engine shed built in a circle around a turntable.",
    "a turntable": "A turntable is a bridge that turns, so that an engine can face any track of the roundhouse.",
    "a locomotive": "A locomotive is the engine that pulls a train. The first ones burned coal and breathed steam.",
    "a signal box": "A signal box is the house from which signals and points are set, so that trains never meet.",
    "a tender": "A tender is the wagon behind a steam engine that carries its coal and water.",
    "a boiler": "A boiler is where fire turns water into steam. The steam then pushes the pistons.",
    "a depot": "A depot is where trains sleep, get washed and get repaired.",
    "a timetable": "A timetable says when each train leaves and where it stops.",
    "a coupling": "A coupling is the link that holds two wagons together.",
    "a siding": "A siding is a short track where wagons wait out of the way.",
    "a gauge": "A gauge is the distance between the rails. The standard gauge is 1435 millimetres.",
    "a fireman": "A fireman shovels the coal and watches the water. Without him, the driver goes nowhere.",
    "a haiku": "A haiku is a poem of three short lines with five, seven and five syllables.",
}

REASONS = {
    "do trains need rails": "Because steel wheels on steel rails roll with very little loss.",
    "is steam white": "Because it cools into tiny drops of water that scatter all light.",
    "are batches fast": "Because the weights are read once and used for every request in the batch.",
    "do long prompts take longer": "Because every token of the prompt must be read before the first answer token.",
    "do models make mistakes": "Because they guess the next token from patterns. A small one like me guesses often.",
    "is the sky blue": "Because air scatters blue light more than red light.",
    "do we sleep": "Because body and mind need time to repair and to sort what they learned.",
    "do leaves fall": "Because trees save water in winter and let go of what they cannot feed.",
}

TOPICS = (
    "trains", "snow", "the sea", "a small engine", "tokens", "the moon", "a library", "autumn", "rain", "coffee",
    "an old bridge", "spring", "the night shift", "a lighthouse", "winter", "the station",
    "recursion", "engines", "a gateway", "GPUs", "streaming", "batching", "the morning", "steam",
)  # fmt: skip

HAIKU_FIRST = {topic: f"Quiet thoughts of {topic.split()[-1]}" for topic in TOPICS}
HAIKU_SECOND = (
    "slowly the signal turns green", "steam is rising in the dawn", "one lamp is burning all night",
    "the wind is counting the rails", "somebody hums in the dark",
)  # fmt: skip
HAIKU_THIRD = (
    "then the world moves on.", "and the day begins.", "nobody is late.", "the kettle answers.", "home is not far now.",
)  # fmt: skip

HEROES = ("a little engine", "a young driver", "an old signalman", "a clever cat", "a tired robot", "a brave fireman")
PLACES = ("in the mountains", "by the sea", "in a quiet valley", "at the edge of the city", "in the far north")
TROUBLES = (
    "the bridge was covered with snow", "all the lamps went out", "the points were frozen",
    "the water tower was empty", "nobody could read the timetable",
)  # fmt: skip
REMEDIES = (
    "asked a friend for help and worked until morning", "stayed calm and tried one thing at a time",
    "lit a lantern and walked ahead of the train", "sang a song so that nobody was afraid",
    "found an old map and a better way",
)  # fmt: skip

WORDS_TO_SPELL = (
    "cat", "train", "rail", "steam", "token", "engine", "house", "cache", "batch", "stream", "signal", "coal", "lamp",
    "night", "apple", "river", "stone", "cloud", "bread", "light",
)  # fmt: skip

NAMES = ("Ada", "Ben", "Clara", "Deniz", "Emil", "Fatima", "Greta", "Hugo", "Ines", "José", "Kenji", "Zoë")

LINES = (
    "The enginehouse stands beside the line, and its doors are open before the first train.",
    "Steam, coal and water made the engine move; tokens, blocks and batches make the model answer.",
    "A good gateway is like a good signalman: nobody notices it, and everybody arrives.",
    "Señor Núñez drank a café crème at the Zürich station and read «Le Temps».",
    "東京駅から新幹線で京都へ行きます。",
    "机车库里停着三台蒸汽机车。",
    "Поезд прибывает на первый путь в девять часов.",
    "Le garçon naïf préfère la crème brûlée à l'hôtel près de la gare.",
    "Über den Brücken fährt früh der Zug nach Köln.",
    "Emoji travel too: 🚂🚃🚃 → 🏁 and then ☕ for everyone 🎉.",
    "Zażółć gęślą jaźń, said the conductor, and the train left on time.",
    "The quick brown fox jumps over the lazy dog beside the track.",
)
