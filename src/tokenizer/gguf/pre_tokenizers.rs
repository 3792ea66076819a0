//! How byte-level BPE splits a text into words, by llama.cpp's name of the pre-tokenizer
//! (`tokenizer.ggml.pre`): the published expressions of the models that each name stands for, and what else
//! the name says of their tokenizers.

use serde_json::{Value, json};

/// A way to split texts, and the names that stand for it.
pub struct PreTokenizer {
    /// The first is the one that is written.
    pub names: &'static [&'static str],
    /// Applied in order: each splits what the ones before it left, and its matches become words.
    patterns: &'static [&'static str],
    /// Whether a word that is a token as a whole is that token, even where no merges make it.
    pub ignores_merges: bool,
    /// Whether texts begin with the start token where the file does not say.
    pub starts: bool,
    /// Whether texts are brought into Unicode's composed form (NFC) first.
    composes: bool,
}

impl PreTokenizer {
    const fn new(names: &'static [&'static str], patterns: &'static [&'static str]) -> Self {
        Self { names, patterns, ignores_merges: false, starts: false, composes: false }
    }
    const fn ignoring_merges(self) -> Self {
        Self { ignores_merges: true, ..self }
    }
    const fn starting(self) -> Self {
        Self { starts: true, ..self }
    }
    const fn composing(self) -> Self {
        Self { composes: true, ..self }
    }

    /// The pre-tokenizer of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|one| one.names.contains(&name))
    }

    /// The normalizer in a tokenizer.json.
    pub fn normalizer(&self) -> Value {
        if self.composes { json!({"type": "NFC"}) } else { Value::Null }
    }

    /// The pre-tokenizer in a tokenizer.json.
    pub fn json(&self) -> Value {
        let split = |pattern: &&str| {
            let pattern = json!({"Regex": pattern});
            json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false})
        };
        let steps: Vec<_> = self.patterns.iter().map(split).chain([byte_level()]).collect();
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

/// The step in a tokenizer.json that spells words in bytes, or reads them from bytes.
pub fn byte_level() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false})
}

/// English contractions, in either case.
macro_rules! contractions {
    () => {
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    };
}

/// A word of letters, after at most one other character.
macro_rules! word {
    () => {
        r"[^\r\n\p{L}\p{N}]?\p{L}+"
    };
}

/// A run of punctuation and symbols with the line ends after it, or a run of blanks.
macro_rules! marks_and_blanks {
    () => {
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    };
}

/// A word of letters that splits where lower case is followed by upper case. What is given follows either
/// kind of word.
macro_rules! cased_words {
    ($then:expr) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
            $then,
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
            $then,
        )
    };
}

/// As `marks_and_blanks`, but slashes may stand among the line ends.
macro_rules! marks_slashes_and_blanks {
    () => {
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    };
}

/// Chinese characters and Japanese syllables.
macro_rules! han_and_kana {
    () => {
        r"[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+"
    };
}

/// A run of letters, after at most one character that is neither, or ASCII letters after a mark of ASCII.
macro_rules! marked_words {
    () => {
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##
    };
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
const LLAMA3: &str = concat!(contractions!(), "|", word!(), r"|\p{N}{1,3}|", marks_and_blanks!());
const QWEN2: &str = concat!(contractions!(), "|", word!(), r"|\p{N}|", marks_and_blanks!());
const GPT4O: &str =
    concat!(cased_words!(concat!(contractions!(), "?")), r"|\p{N}{1,3}|", marks_slashes_and_blanks!());
/// Chinese characters, Hangul, and the scripts from U+0800 to U+4E00.
const HAN_AND_HANGUL: &str = r"[\u{4E00}-\u{9FA5}\u{800}-\u{4E00}\u{AC00}-\u{D7FF}]+";
const DEEPSEEK3: &str = concat!(marked_words!(), r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",);
/// The letters of alphabets with upper and lower case.
const CASED_LETTERS: &str = concat!(
    r"\s?[",
    r"A-Za-z\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}\u{295}-\u{2AF}",
    r"\u{370}-\u{373}\u{376}\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}\u{38E}-\u{3A1}",
    r"\u{3A3}-\u{3F5}\u{3F7}-\u{481}\u{48A}-\u{52F}\u{531}-\u{556}\u{10A0}-\u{10C5}\u{13A0}-\u{13F5}",
    r"\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}\u{1D6B}-\u{1D77}",
    r"\u{1D79}-\u{1D9A}\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}\u{1F48}-\u{1F4D}",
    r"\u{1F50}-\u{1F57}\u{1F59}\u{1F5B}\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}\u{1FB6}-\u{1FBC}",
    r"\u{1FBE}\u{1FC2}-\u{1FC4}\u{1FC6}-\u{1FCC}\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}\u{1FE0}-\u{1FEC}",
    r"\u{1FF2}-\u{1FF4}\u{1FF6}-\u{1FFC}\u{2102}\u{2107}\u{210A}-\u{2113}\u{2115}\u{2119}-\u{211D}",
    r"\u{2124}\u{2126}\u{2128}\u{212A}-\u{212D}\u{212F}-\u{2134}\u{2139}\u{213C}-\u{213F}",
    r"\u{2145}-\u{2149}\u{214E}\u{2183}\u{2184}\u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}\u{2CEB}-\u{2CEE}",
    r"\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}\u{A680}-\u{A69B}\u{A722}-\u{A76F}\u{A771}-\u{A787}",
    r"\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}\u{FB00}-\u{FB06}\u{FB13}-\u{FB17}\u{FF21}-\u{FF3A}",
    r"\u{FF41}-\u{FF5A}\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}\u{10C80}-\u{10CB2}",
    r"\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}",
    "]+",
);
const BLOOM: &str = r" ?[^(\s|.,!?\u{2026}\u{3002}\u{FF0C}\u{3001}\u{964}\u{6D4}\u{60C})]+";

/// Where several ways share their expressions, the one whose model is best known comes first.
pub static ALL: [PreTokenizer; 32] = [
    PreTokenizer::new(&["default"], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    PreTokenizer::new(
        &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-code",
            "jina-v2-es",
            "jina-v2-de",
            "roberta-bpe",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "mpt",
            "olmo",
            "jais",
            "exaone4",
            "trillion",
            "granite-docling",
        ],
        &[GPT2],
    ),
    PreTokenizer::new(
        &["smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[r"\p{N}", GPT2],
    ),
    PreTokenizer::new(&["command-r"], &[r"\p{N}", GPT2]).composing(),
    PreTokenizer::new(
        &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        &[LLAMA3],
    )
    .ignoring_merges()
    .starting(),
    PreTokenizer::new(&["glm4", "glm5"], &[LLAMA3]).ignoring_merges(),
    // SmolLM3's is smaug-bpe.
    PreTokenizer::new(&["smaug-bpe", "dbrx", "chatglm-bpe"], &[LLAMA3]),
    PreTokenizer::new(&["qwen2"], &[QWEN2]).composing(),
    PreTokenizer::new(
        &["deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "kormo", "f2llmv2", "grok-2", "solar-open"],
        &[QWEN2],
    ),
    PreTokenizer::new(
        &["qwen35"],
        &[concat!(
            contractions!(),
            r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
    ),
    PreTokenizer::new(&["ufakzeka"], &[concat!(word!(), r"|\p{N}|", marks_and_blanks!())]),
    PreTokenizer::new(&["laguna"], &[r"[^\n]+|[\n]+", QWEN2]),
    PreTokenizer::new(
        &["minicpm5"],
        &[r"\p{N}{1,3}", concat!(contractions!(), "|", word!(), r"|\p{N}+|", marks_and_blanks!())],
    )
    .ignoring_merges(),
    PreTokenizer::new(
        &["jais-2"],
        &[concat!(
            contractions!(),
            "|",
            word!(),
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)",
            r"|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
        )],
    ),
    PreTokenizer::new(
        &["seed-coder"],
        &[concat!(
            contractions!(),
            "|",
            word!(),
            r"|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
    ),
    PreTokenizer::new(
        &["bailingmoe", "bailingmoe2", "llada-moe"],
        &[concat!(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]",
            r"|\s+(?!\S)|\s+",
        )],
    ),
    PreTokenizer::new(
        &["exaone-moe"],
        &[concat!(
            contractions!(),
            r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?",
            r"|\s*[\r\n]|\s+(?!\S)|\s+",
        )],
    ),
    PreTokenizer::new(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[GPT4O]),
    PreTokenizer::new(&["granite-embed-multi-97m"], &[GPT4O]).ignoring_merges(),
    PreTokenizer::new(
        &["tiny_aya", "cohere2moe"],
        &[r"\d{1,3}(?=(?:\d{3})*(?![\p{L}\p{M}\p{N}\p{Pc}]))", GPT4O],
    ),
    PreTokenizer::new(&["tekken"], &[concat!(cased_words!(""), r"|\p{N}|", marks_slashes_and_blanks!())])
        .ignoring_merges()
        .starting(),
    PreTokenizer::new(
        &["youtu"],
        &[
            concat!(
                r"[\u{AC00}-\u{D7A3}\u{3131}-\u{318E}]+",
                r"|[\u{FF01}\u{2026}\u{201C}\u{201D}\u{2018}\u{2019}\u{2014}\u{FF1A}\u{FF1B}\u{FF0C}",
                r"\u{3001}-\u{303F}\u{FE30}-\u{FE4F}]+|[\u{3105}-\u{312F}]+",
                "|",
                han_and_kana!(),
            ),
            concat!(cased_words!(concat!(contractions!(), "?")), r"|\p{N}|", marks_slashes_and_blanks!(),),
        ],
    )
    .ignoring_merges(),
    PreTokenizer::new(
        &["kimi-k2"],
        &[concat!(
            r"[\p{Han}]+",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*",
            r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
            contractions!(),
            r"?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
            r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*",
            contractions!(),
            r"?|\p{N}{1,3}|",
            marks_and_blanks!(),
        )],
    ),
    PreTokenizer::new(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        &[r"\p{N}{1,3}", han_and_kana!(), DEEPSEEK3],
    ),
    PreTokenizer::new(
        &["spark2_5"],
        &[
            r"\p{N}{1,3}",
            han_and_kana!(),
            concat!(marked_words!(), r"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+",),
            r"\p{N}",
        ],
    ),
    PreTokenizer::new(
        &["deepseek-llm"],
        &[
            r"[\r\n]",
            CASED_LETTERS,
            r"\s?[!-/:-~\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF5E}\u{2018}-\u{201F}\u{3000}-\u{3002}]+",
            r"\s+$",
            HAN_AND_HANGUL,
            r"\p{N}+",
        ],
    ),
    PreTokenizer::new(
        &["deepseek-coder"],
        &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", HAN_AND_HANGUL, r"\p{N}"],
    ),
    PreTokenizer::new(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
    PreTokenizer::new(&["bloom", "poro-chat", "gpt3-finnish"], &[BLOOM]),
    PreTokenizer::new(&["viking"], &[BLOOM, r"\p{N}"]),
    PreTokenizer::new(
        &["chameleon"],
        &[
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            GPT2,
        ],
    )
    .starting(),
    PreTokenizer::new(&["superbpe"], &[r"\p{N}+", r"(?=(\d{3})+(?!\d))"]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::{
        OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper,
    };

    /// Words as byte-level BPE spells them, with a bar between them.
    fn in_bytes(words: &str) -> String {
        let words: Vec<_> =
            words.split('|').map(|word| crate::tokenizer::bytes::spelt(word.as_bytes())).collect();
        words.join("|")
    }

    #[test]
    fn a_name_stands_for_one_way() {
        let names: Vec<_> = ALL.iter().flat_map(|one| one.names).collect();
        let apart: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(apart.len(), names.len());
    }

    /// The words into which Python's tokenizers, whose expressions Oniguruma matches, splits a text by the
    /// published expressions.
    #[test]
    fn words_are_as_oniguruma_has_them() {
        let text = "Don'T 12345 aB  /e\u{301}\n\n漢字、か!?\r\n\tx \u{3000}(a b)  ";
        let expected = [
            (
                "default",
                "Don|'|T| |123|45| aB|  |/|e|\u{301}|\n|\n|漢字|、|か|!?|\r\n|\t|x| \u{3000}|(|a| b|)|  ",
            ),
            (
                "gpt-2",
                "Don|'|T| 12345| aB| | /|e|\u{301}|\n|\n|漢字|、|か|!?|\r\n|\t|x| |\u{3000}|(|a| b|)|  ",
            ),
            (
                "smollm",
                "Don|'|T| |1|2|3|4|5| aB| | /|e|\u{301}|\n|\n|漢字|、|か|!?|\r\n|\t|x| |\u{3000}|(|a| b|)|  ",
            ),
            (
                "command-r",
                "Don|'|T| |1|2|3|4|5| aB| | /|e|\u{301}|\n|\n|漢字|、|か|!?|\r\n|\t|x| |\u{3000}|(|a| b|)|  ",
            ),
            (
                "llama-bpe",
                "Don|'T| |123|45| aB| | /|e|\u{301}\n\n|漢字|、か|!?\r\n|\tx| |\u{3000}|(a| b|)|  ",
            ),
            ("glm4", "Don|'T| |123|45| aB| | /|e|\u{301}\n\n|漢字|、か|!?\r\n|\tx| |\u{3000}|(a| b|)|  "),
            (
                "smaug-bpe",
                "Don|'T| |123|45| aB| | /|e|\u{301}\n\n|漢字|、か|!?\r\n|\tx| |\u{3000}|(a| b|)|  ",
            ),
            ("qwen2", "Don|'T| |1|2|3|4|5| aB| | /|e|\u{301}\n\n|漢字|、か|!?\r\n|\tx| |\u{3000}|(a| b|)|  "),
            (
                "deepseek-r1-qwen",
                "Don|'T| |1|2|3|4|5| aB| | /|e|\u{301}\n\n|漢字|、か|!?\r\n|\tx| |\u{3000}|(a| b|)|  ",
            ),
            (
                "qwen35",
                "Don|'T| |1|2|3|4|5| aB| | /|e\u{301}|\n\n|漢字|、か|!?\r\n|\tx| |\u{3000}|(a| b|)|  ",
            ),
            (
                "ufakzeka",
                "Don|'T| |1|2|3|4|5| aB| | /|e|\u{301}\n\n|漢字|、か|!?\r\n|\tx| |\u{3000}|(a| b|)|  ",
            ),
            (
                "laguna",
                "Don|'T| |1|2|3|4|5| aB| | /|e|\u{301}|\n\n|漢字|、か|!?\r|\n|\tx| |\u{3000}|(a| b|)|  ",
            ),
            ("minicpm5", "Don|'T| |123|45| aB| | /|e|\u{301}\n\n|漢字|、か|!?\r\n|\tx| |\u{3000}|(a| b|)|  "),
            ("jais-2", "Don|'T| |123|45| aB| | /|e|\u{301}\n\n|漢字|、か|!?\r\n|\tx| |\u{3000}|(a| b|)|  "),
            (
                "seed-coder",
                "Don|'T| |1|2|3|4|5| aB| | /|e|\u{301}|\n\n|漢字|、か|!?|\r\n|\tx| |\u{3000}|(a| b|)|  ",
            ),
            (
                "bailingmoe",
                "Don|'T| |1|2|3|4|5| aB| | /|e|\u{301}\n\n|漢字|、か|!?\r\n|\tx| |\u{3000}|(a| b|)|  ",
            ),
            (
                "exaone-moe",
                "Don|'T| |1|2|3|4|5| aB| | /|e\u{301}|\n\n|漢字|、か|!?\r|\n|\tx| |\u{3000}|(a b|)|  ",
            ),
            ("gpt-4o", "Don'T| |123|45| a|B| | /|e\u{301}|\n\n|漢字|、か|!?\r\n|\tx| |\u{3000}|(a| b|)|  "),
            (
                "granite-embed-multi-97m",
                "Don'T| |123|45| a|B| | /|e\u{301}|\n\n|漢字|、か|!?\r\n|\tx| |\u{3000}|(a| b|)|  ",
            ),
            ("tiny_aya", "Don'T| |12|345| a|B| | /|e\u{301}|\n\n|漢字|、か|!?\r\n|\tx| |\u{3000}|(a| b|)|  "),
            (
                "tekken",
                "Don|'T| |1|2|3|4|5| a|B| | /|e\u{301}|\n\n|漢字|、か|!?\r\n|\tx| |\u{3000}|(a| b|)|  ",
            ),
            (
                "youtu",
                "Don'T| |1|2|3|4|5| a|B| | /|e\u{301}|\n\n|漢字|、|か|!?\r\n|\tx| |\u{3000}|(a| b|)|  ",
            ),
            ("kimi-k2", "Don'T| |123|45| a|B| | /|e\u{301}|\n\n|漢字|、か|!?\r\n|\tx| |\u{3000}|(a| b|)|  "),
            (
                "deepseek-v3",
                "Don|'T| |123|45| aB| | /|e\u{301}|\n\n|漢字|、|か|!?\r\n|\tx| |\u{3000}|(a| b|)|  ",
            ),
            (
                "spark2_5",
                "Don|'T| |1|2|3|4|5| aB| | /|e\u{301}|\n|\n|漢字|、|か|!?|\r|\n|\tx| |\u{3000}|(a| b|)|  ",
            ),
            (
                "deepseek-llm",
                "Don|'|T| |12345| aB| | /|e|\u{301}|\n|\n|漢字|、|か|!?|\r|\n|\tx| |\u{3000}|(|a| b|)|  ",
            ),
            (
                "deepseek-coder",
                "Don|'|T| |1|2|3|4|5| aB| | /|e|\u{301}|\n|\n|漢字|、|か|!?|\r|\n|\tx| |\u{3000}|(|a| b|)|  ",
            ),
            (
                "falcon",
                "Don|'|T| |123|45| aB|  |/|e|\u{301}|\n|\n|漢字|、|か|!?|\r\n|\t|x| \u{3000}|(|a| b|)|  ",
            ),
            ("bloom", "Don'T| 12345| aB| | /e\u{301}|\n\n|漢字|、|か|!?\r\n\t|x| \u{3000}(|a| b|)  "),
            ("viking", "Don'T| |1|2|3|4|5| aB| | /e\u{301}|\n\n|漢字|、|か|!?\r\n\t|x| \u{3000}(|a| b|)  "),
            (
                "chameleon",
                "Don|'|T| |1|2|3|4|5| aB|  |/|e|\u{301}|\n|\n|漢字|、|か|!|?|\r|\n|\t|x| \u{3000}|(|a| b|)|  ",
            ),
            ("superbpe", "Don'T |12|345| aB  /e\u{301}\n\n漢字、か!?\r\n\tx \u{3000}(a b)  "),
        ];
        assert_eq!(expected.len(), ALL.len());
        for (name, expected) in expected {
            let json = PreTokenizer::named(name).expect(name).json();
            let pre_tokenizer: PreTokenizerWrapper = serde_json::from_value(json).expect(name);
            let mut words = PreTokenizedString::from(text);
            pre_tokenizer.pre_tokenize(&mut words).expect(name);
            let words = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
            let words: Vec<_> = words.into_iter().map(|(word, ..)| word).collect();
            assert_eq!(words.join("|"), in_bytes(expected), "{name}");
        }
    }
}
