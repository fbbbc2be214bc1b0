"""The last part of docs/techniques.md: each technique in a sentence, with where it comes from."""

_KRIZHEVSKY = "Krizhevsky et al. 2012"
_SIMCLR = "Chen et al. 2020, arXiv:2002.05709"
_SBERT = "Reimers and Gurevych 2019, arXiv:1908.10084"
_ADAM = "Kingma and Ba 2015, arXiv:1412.6980"
_BATCH_NORM = "Ioffe and Szegedy 2015, arXiv:1502.03167"
_ULMFIT = "Howard and Ruder 2018, arXiv:1801.06146"
_LORA = "Hu et al. 2021, arXiv:2106.09685"
_CARUANA = "Caruana 1997"

# Technique, as technique_table.py names it -> (what it does, source).
PAPERS: dict[str, tuple[str, str]] = {
    "full": ("everything learns from the pretrained weights", "Yosinski et al. 2014, arXiv:1411.1792"),
    "layer-wise decay": ("lower blocks take smaller rates", "Clark et al. 2020, arXiv:2003.10555"),
    "zones": ("three rates, for the base, middle and top of the blocks", _ULMFIT),
    "head (linear probe)": ("only the new head learns", "Alain and Bengio 2016, arXiv:1610.01644"),
    "freeze all but the last blocks": ("general lower blocks stay, special upper ones learn",
                                       "Yosinski et al. 2014, arXiv:1411.1792"),
    "head first, then everything": ("a trained head does not distort the features below it",
                                    "Kumar et al. 2022, arXiv:2202.10054"),
    "gradual unfreezing": ("one more group of blocks each stage, from the top", _ULMFIT),
    "stages of your own": ("any of these one after the other", ""),
    "biases (BitFit)": ("biases, and here norms too, learn", "Ben Zaken et al. 2021, arXiv:2106.10199"),
    "norms": ("scales and shifts of the norms learn", "Frankle et al. 2020, arXiv:2003.00152"),
    "random weights": ("no transfer: the baseline", "He et al. 2019, arXiv:1811.08883"),
    "re-initialised top blocks": ("the top blocks start anew", "Zhang et al. 2021, arXiv:2006.05987"),
    "fixed features, logistic regression": ("a classifier on features computed once",
                                            "Donahue et al. 2014, arXiv:1310.1531"),
    "fixed features, ridge": ("least squares with a penalty on the weights", "Hoerl and Kennard 1970"),
    "fixed features, linear SVM": ("the widest margin on fixed features", "Razavian et al. 2014, arXiv:1403.6382"),
    "fixed features, neighbours": ("the labels of the nearest training rows", "Wu et al. 2018, arXiv:1805.01978"),
    "features of the middle": ("features before they turn to the checkpoint's own task",
                               "Yosinski et al. 2014, arXiv:1411.1792"),
    "LoRA": ("a low-rank change is added to frozen weights", _LORA),
    "LoRA, merged": ("that change added into the weights when saved", _LORA),
    "LoRA+": ("a larger rate for LoRA's second matrices", "Hayou et al. 2024, arXiv:2402.12354"),
    "DoRA": ("magnitude and direction learn apart", "Liu et al. 2024, arXiv:2402.09353"),
    "rsLoRA": ("a scale that holds for high ranks", "Kalajdzievski 2023, arXiv:2312.03732"),
    "PiSSA": ("LoRA from the principal components of the weights", "Meng et al. 2024, arXiv:2404.02948"),
    "IA3": ("one learned factor for each output", "Liu et al. 2022, arXiv:2205.05638"),
    "VeRA": ("shared random projections, learned scales", "Kopiczko et al. 2024, arXiv:2310.11454"),
    "LoHa": ("a Hadamard product of two low-rank changes", "Hyeon-Woo et al. 2022, arXiv:2108.06098"),
    "LoKr": ("a Kronecker product", "Yeh et al. 2024, arXiv:2309.14859"),
    "OFT": ("weights are rotated, angles between them kept", "Qiu et al. 2023, arXiv:2306.07280"),
    "BOFT": ("rotations made of sparse butterfly factors", "Liu et al. 2024, arXiv:2311.06243"),
    "prompt tuning": ("learned tokens before the input", "Lester et al. 2021, arXiv:2104.08691"),
    "prefix tuning": ("learned keys and values in every block", "Li and Liang 2021, arXiv:2101.00190"),
    "mlp head": ("hidden layers before the output", ""),
    "cosine head": ("angles decide, not lengths: for few samples a class",
                    "Gidaris and Komodakis 2018, arXiv:1804.09458"),
    "pooling: cls": ("the class token's vector", "Devlin et al. 2019, arXiv:1810.04805"),
    "pooling: mean": ("the mean over tokens or places", _SBERT),
    "pooling: max": ("the largest of each feature", _SBERT),
    "pooling: gem": ("between mean and max, by a learned power", "Radenović et al. 2018, arXiv:1711.02512"),
    "pooling: attention": ("a learned query weighs tokens or places", "Ilse et al. 2018, arXiv:1802.04712"),
    "another activation": ("such as SiLU", "Elfwing et al. 2017, arXiv:1702.03118"),
    "dropout": ("activations are zeroed at random", "Srivastava et al. 2014"),
    "stochastic depth": ("whole blocks are left out at random", "Huang et al. 2016, arXiv:1603.09382"),
    "BatchNorm frozen": ("the checkpoint's statistics stay", _BATCH_NORM),
    "BatchNorm momentum": ("statistics follow the new data more slowly", _BATCH_NORM),
    "top block removed": ("a shallower, faster model", "Sajjad et al. 2020, arXiv:2004.03844"),
    "four channels": ("pretrained filters made to fit other images", ""),
    "another image size": ("position embeddings resized", "Touvron et al. 2019, arXiv:1906.06423"),
    "another length": ("position embeddings resized", "Chen et al. 2023, arXiv:2306.15595"),
    "loss: cross_entropy": ("minus the log probability of the label", ""),
    "loss: focal": ("easy samples count less", "Lin et al. 2017, arXiv:1708.02002"),
    "loss: bce": ("each class against the rest", "Wightman et al. 2021, arXiv:2110.00476"),
    "loss: coral": ("ordered classes by one score and thresholds", "Cao et al. 2019, arXiv:1901.07884"),
    "label smoothing": ("targets a little below 1", "Szegedy et al. 2016, arXiv:1512.00567"),
    "class weights": ("rows of rare classes count more", "King and Zeng 2001"),
    "balanced sampling": ("each class is drawn as often", "Kang et al. 2020, arXiv:1910.09217"),
    "logit adjustment": ("log class frequencies added in training", "Menon et al. 2020, arXiv:2007.07314"),
    "R-Drop": ("two passes with dropout shall agree", "Liang et al. 2021, arXiv:2106.14448"),
    "L2-SP": ("weights are pulled to the checkpoint's", "Li et al. 2018, arXiv:1802.01483"),
    "optimizer: sgd": ("steps along the gradient, with momentum", "Sutskever et al. 2013"),
    "optimizer: adam": ("steps scaled by the gradient's own size", _ADAM),
    "optimizer: adamw": ("Adam with weight decay of its own", "Loshchilov and Hutter 2019, arXiv:1711.05101"),
    "optimizer: adagrad": ("steps scaled by all gradients so far", "Duchi et al. 2011"),
    "optimizer: rmsprop": ("by a moving mean of their squares", "Tieleman and Hinton 2012"),
    "optimizer: adadelta": ("the same, without a rate of its own", "Zeiler 2012, arXiv:1212.5701"),
    "optimizer: adamax": ("Adam with the largest gradient", _ADAM),
    "optimizer: lion": ("the sign of a momentum", "Chen et al. 2023, arXiv:2302.06675"),
    "optimizer: muon": ("steps of hidden matrices made orthogonal", "Liu et al. 2025, arXiv:2502.16982"),
    "time budget": ("training ends when the time is used up", "Li et al. 2020, arXiv:1905.04753"),
    "moving average of weights": ("the mean of recent weights", "Polyak and Juditsky 1992"),
    "soup": ("the mean of the best checkpoints", "Wortsman et al. 2022, arXiv:2203.05482"),
    "augmentation: crop": ("a random part of the image", "Szegedy et al. 2015, arXiv:1409.4842"),
    "augmentation: pad_crop": ("shifts of a few pixels", "He et al. 2016, arXiv:1512.03385"),
    "augmentation: flip": ("left and right change places", _KRIZHEVSKY),
    "augmentation: vertical_flip": ("up and down change places", ""),
    "augmentation: rotation": ("a random angle", "Simard et al. 2003"),
    "augmentation: color_jitter": ("brightness, contrast and saturation", "Howard 2013, arXiv:1312.5402"),
    "augmentation: grey": ("without colour", _SIMCLR),
    "augmentation: blur": ("a Gaussian blur", _SIMCLR),
    "augmentation: rand_augment": ("two random operations of one strength", "Cubuk et al. 2019, arXiv:1909.13719"),
    "augmentation: trivial_augment": ("one random operation of random strength",
                                      "Müller and Hutter 2021, arXiv:2103.10158"),
    "augmentation: aug_mix": ("mixed chains of operations", "Hendrycks et al. 2020, arXiv:1912.02781"),
    "augmentation: erasing": ("a rectangle of noise", "Zhong et al. 2017, arXiv:1708.04896"),
    "augmentation: word_dropout": ("tokens masked at random", "Iyyer et al. 2015"),
    "augmentation: span_dropout": ("a run of neighbouring tokens masked", "Joshi et al. 2020, arXiv:1907.10529"),
    "mixup": ("weighted means of two images and their labels", "Zhang et al. 2018, arXiv:1710.09412"),
    "CutMix": ("a rectangle of one image in another", "Yun et al. 2019, arXiv:1905.04899"),
    "test-time augmentation": ("the mean over several views", _KRIZHEVSKY),
    "windows over long texts": ("a long text in overlapping parts", "Pappagari et al. 2019, arXiv:1910.10781"),
    "cleaning": ("copies and empty rows left out", "Lee et al. 2022, arXiv:2107.06499"),
    "distillation": ("a small model learns a large one's probabilities", "Hinton et al. 2015, arXiv:1503.02531"),
    "distillation of features": ("or what its last layer sees", "Romero et al. 2015, arXiv:1412.6550"),
    "classes and numbers at once": ("several heads on one backbone", _CARUANA),
    "balance: uncertainty": ("a learned variance divides each loss", "Kendall et al. 2018, arXiv:1705.07115"),
    "balance: equal": ("each loss divided by its running size", "Chennupati et al. 2019, arXiv:1904.08492"),
    "several tasks, LoRA": ("several heads on one adapted backbone", _LORA),
    "several tasks, fixed features": ("refused: scikit-learn fits one label", ""),
}  # fmt: skip


def _source(words: str) -> str:
    before, mark, number = words.partition("arXiv:")
    return f"{before}[arXiv:{number}](https://arxiv.org/abs/{number})" if mark else words


def papers() -> str:
    """The part of the page, as Markdown."""
    rows = [f"| {name} | {what} | {_source(source)} |" for name, (what, source) in PAPERS.items()]
    return "\n".join(["## In a sentence, and where from", "", "| technique | does | source |", "|---|---|---|", *rows])


if __name__ == "__main__":
    print(papers())
