//! Text → token ids and back, compared with transformers.

use crate::support::shared;
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};
use wgpt::{
    model::Model,
    tokenizer::{Settings, Tokenizer},
    weights::{Bytes, Gguf, Writer},
};

/// The published GPT-1 and GPT-2 vocabularies: the ids of awkward texts, and the text that they decode to.
#[test]
fn the_published_vocabularies_are_read_as_transformers_reads_them() {
    #[derive(serde::Deserialize)]
    struct Case {
        text: String,
        ids: Vec<u32>,
        decoded: String,
    }
    for (folder, family) in [("gpt1", "openai-gpt"), ("gpt2", "gpt2")] {
        let Some(folder) = shared(&format!("tokenizers/{folder}")) else { continue };
        let tokenizer =
            Settings::read(&folder, family).and_then(|s| Tokenizer::open(&folder, &s)).expect("a tokenizer");
        let expected = fs::read_to_string(folder.join("expected.json")).expect("expected.json");
        let cases: Vec<Case> = serde_json::from_str(&expected).expect("a list of cases");
        assert!(!cases.is_empty());
        for case in cases {
            assert_eq!(
                tokenizer.encode(&case.text, true).expect("ids"),
                case.ids,
                "{family}: {:?}",
                case.text
            );
            assert_eq!(tokenizer.decode(&case.ids, false), case.decoded, "{family}: {:?}", case.text);
            check_stream(&tokenizer, &[], &case.ids, &tokenizer.decode(&case.ids, true));
        }
    }
}

/// Tokenizers as published models have them, in all the forms that their files take, and as many random ones
/// as the file of WGPT_SETUPS holds: ids, texts and the names of special tokens are transformers'.
#[test]
fn tokenizers_are_resolved_as_by_transformers() {
    #[derive(serde::Deserialize)]
    struct Setup {
        name: String,
        family: String,
        files: BTreeMap<String, String>,
        special_tokens: BTreeMap<String, String>,
        cases: Vec<Case>,
    }
    #[derive(serde::Deserialize)]
    struct Case {
        text: String,
        ids: Vec<u32>,
        whole: String,
        shown: String,
    }
    let path = std::env::var("WGPT_SETUPS").unwrap_or("tests/fixtures/setups.json".to_owned());
    let setups: Vec<Setup> =
        serde_json::from_str(&fs::read_to_string(path).expect("the set-ups")).expect("set-ups");
    assert!(!setups.is_empty());
    let mut wrong = Vec::new();
    for setup in &setups {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in &setup.files {
            let bytes = if name.ends_with(".model") { unhex(text) } else { text.clone().into_bytes() };
            fs::write(folder.path().join(name), bytes).expect("a file");
        }
        let settings = Settings::read(folder.path(), &setup.family).expect(&setup.name);
        let tokenizer = Tokenizer::open(folder.path(), &settings).expect(&setup.name);
        if settings.special_tokens != setup.special_tokens {
            wrong.push(format!(
                "{}: {:?} for {:?}",
                setup.name, settings.special_tokens, setup.special_tokens
            ));
        }
        for case in &setup.cases {
            let ids = tokenizer.encode(&case.text, true).expect("ids");
            let texts = [tokenizer.decode(&case.ids, false), tokenizer.decode(&case.ids, true)];
            if ids != case.ids || texts != [&case.whole[..], &case.shown] {
                wrong.push(format!("{}: {:?}: {ids:?} {texts:?}", setup.name, case.text));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} set-ups' cases:\n{}", wrong.len(), setups.len(), wrong.join("\n"));
}

/// A SentencePiece model of another kind than its class is, or of a class that is not read, is refused.
#[test]
fn sentence_piece_models_of_another_class_are_refused() {
    let setups: Value =
        serde_json::from_slice(&fs::read("tests/fixtures/setups.json").expect("the set-ups")).expect("JSON");
    let unigram = setups.as_array().and_then(|all| all.iter().find(|setup| setup["name"] == "unigram"));
    let file = unhex(unigram.expect("a set-up")["files"]["tokenizer.model"].as_str().expect("a file"));
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let open = || {
        let settings = Settings::read(folder.path(), "llama").expect("settings");
        Tokenizer::open(folder.path(), &settings).err().map(|e| e.to_string()).unwrap_or_default()
    };
    fs::write(at("tokenizer.model"), &file).expect("a file");
    assert_eq!(open(), "");
    for (class, why) in [("LlamaTokenizer", "is not a SentencePiece model of BPE"), ("T5Tokenizer", "only")] {
        let config = format!("{{\"tokenizer_class\": \"{class}\"}}");
        fs::write(at("tokenizer_config.json"), config).expect("a file");
        let error = open();
        assert!(
            [why, class, "tokenizer.model", "tokenizer.json"].iter().all(|w| error.contains(w)),
            "{error}"
        );
    }
    for damaged in [&file[..100], b"", b"no protocol buffer"] {
        fs::write(at("tokenizer.model"), damaged).expect("a file");
        let error = open();
        assert!(error.contains("tokenizer.model") && error.contains("download it again"), "{error}");
    }
}

/// The bytes of a text in hexadecimal.
fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// Checks that a stream's pieces are whole characters and add up to the text.
fn check_stream(tokenizer: &Tokenizer, prompt: &[u32], ids: &[u32], expected: &str) {
    let mut stream = tokenizer.stream(prompt);
    let mut text = String::new();
    for id in ids {
        let piece = stream.push(*id);
        assert!(!piece.ends_with('\u{FFFD}'), "half a character: {piece:?}");
        text.push_str(&piece);
    }
    text.push_str(&stream.finish());
    assert_eq!(text, expected);
}

#[test]
fn a_stream_spaces_the_first_word_and_keeps_characters_whole() {
    let (_, tokenizer) = Model::built_in().expect("the built-in model");
    let prompt = tokenizer.encode("Once upon a time", true).expect("ids");
    // Characters outside of the 512 tokens are spelt in bytes: é takes two, € three, 🦀 four.
    for continuation in [" there was", "s, and é", "€ 🦀 crab", "\n\nThe end"] {
        let all = tokenizer.encode(&format!("Once upon a time{continuation}"), true).expect("ids");
        let shared = prompt.iter().zip(&all).take_while(|(a, b)| a == b).count();
        let (head, tail) = all.split_at(shared);
        let expected = format!("Once upon a time{continuation}");
        let expected = expected.strip_prefix(&tokenizer.decode(head, true)).expect("the text goes on");
        check_stream(&tokenizer, head, tail, expected);
    }
}

/// Characters that are spelt as bytes come out whole, however many bytes the prompt ends in, and bytes that
/// are no character spoil none of the others.
#[test]
fn a_stream_of_bytes_goes_on_with_those_of_the_prompt() {
    let (_, tokenizer) = Model::built_in().expect("the built-in model");
    let ids = |text: &str| tokenizer.encode(text, false).expect("ids");
    for (prompt, answer) in [("ああああ", "いう"), ("🙂🙂🙂", "🙂"), ("ไทย", "ไทย and more"), ("a", "é€")]
    {
        let all = ids(&format!("{prompt}{answer}"));
        let from = ids(prompt).len();
        assert_eq!(all[..from], ids(prompt), "{prompt}");
        // Also where the prompt ends within a character.
        for cut in [from, from - 1] {
            let mut stream = tokenizer.stream(&all[..cut]);
            let pieces: Vec<_> = all[cut..].iter().map(|id| stream.push(*id)).collect();
            let last = prompt.chars().last().filter(|last| cut < from && last.len_utf8() > 1);
            let expected: String = last.into_iter().chain(answer.chars()).collect();
            let expected = if cut < from && last.is_none() { format!("{prompt}{answer}") } else { expected };
            assert_eq!(pieces.concat() + &stream.finish(), expected, "{prompt} {answer}");
            // Each character comes with its last byte.
            assert!(pieces.iter().all(|piece| piece.chars().count() <= 1 || piece.is_ascii()), "{pieces:?}");
        }
    }
    // Also where no text stands before it, the blank after a character counts.
    let words = ids("é x");
    let mut stream = tokenizer.stream(&[1]);
    let text: String = words.iter().map(|id| stream.push(*id)).collect();
    assert_eq!(text + &stream.finish(), "é x");
    let (bad, a) = (tokenizer.id("<0xE3>").expect("a byte"), ids("é"));
    let mut stream = tokenizer.stream(&ids("a"));
    let text: String = [&a[..], &[bad], &a[..]].concat().iter().map(|id| stream.push(*id)).collect();
    assert_eq!(text + &stream.finish(), " é\u{FFFD} é");
}

const AWKWARD: [&str; 8] = [
    "Once upon a time, there was a little girl named Lily.",
    "  leading spaces and\ttabs\n\nand blank lines ",
    "naïve café — “quotes” … 3.14159 1,000,000 2024-05-17",
    "日本語 😀👩‍👩‍👧 🇫🇷",
    "don't WE'LL they're I'm",
    "x_y = {a: [1, 2]}; // <s>named</s>",
    "",
    " ",
];

/// Converts a tokenizer.json's vocabulary and merges to GGUF metadata. SentencePiece's merges become scores.
fn as_gguf(json: &[u8], kind: &str, pre: Option<&str>) -> Tokenizer {
    let json: Value = serde_json::from_slice(json).expect("JSON");
    let vocabulary = json["model"]["vocab"].as_object().expect("a vocabulary");
    let mut tokens = vec![String::new(); vocabulary.len()];
    for (token, id) in vocabulary {
        tokens[id.as_u64().expect("an id") as usize] = token.clone();
    }
    let merges: Vec<(String, String)> = json["model"]["merges"]
        .as_array()
        .expect("merges")
        .iter()
        .map(|merge| match merge {
            Value::String(pair) => pair.split_once(' ').map(|(a, b)| (a.into(), b.into())).expect("a pair"),
            pair => (pair[0].as_str().expect("a text").into(), pair[1].as_str().expect("a text").into()),
        })
        .collect();
    let mut scores = vec![-1e9; tokens.len()];
    for (rank, (left, right)) in merges.iter().enumerate().rev() {
        let id = vocabulary[&format!("{left}{right}")].as_u64().expect("an id");
        scores[id as usize] = -(rank as f32);
    }
    let added = json["added_tokens"].as_array().expect("added tokens");
    let mut types = vec![1.0; tokens.len()];
    for token in added {
        types[token["id"].as_u64().expect("an id") as usize] = 3.0;
    }
    let mut file = Writer::default();
    file.text("tokenizer.ggml.model", kind);
    if let Some(pre) = pre {
        file.text("tokenizer.ggml.pre", pre);
    }
    file.texts("tokenizer.ggml.tokens", &tokens);
    file.numbers("tokenizer.ggml.token_type", &types);
    file.numbers("tokenizer.ggml.scores", &scores);
    let merges: Vec<_> = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
    file.texts("tokenizer.ggml.merges", &merges);
    file.count("tokenizer.ggml.bos_token_id", 1);
    file.count("tokenizer.ggml.unknown_token_id", 0);
    Tokenizer::from_gguf(&Gguf::read("file", Bytes::new(file.header())).expect("GGUF")).expect("a tokenizer")
}

fn check_same(a: &Tokenizer, b: &Tokenizer) {
    for text in AWKWARD {
        for add_special in [true, false] {
            let ids = a.encode(text, add_special).expect("ids");
            assert_eq!(b.encode(text, add_special).expect("ids"), ids, "{text:?}");
            assert_eq!(b.decode(&ids, false), a.decode(&ids, false), "{text:?}");
        }
    }
}

/// A tokenizer read from GGUF gives the same ids as its tokenizer.json: SentencePiece with scores, and
/// byte-level BPE.
#[test]
fn tokenizers_from_gguf_equal_those_from_json() {
    let json = include_bytes!("../src/demo/tokenizer.json");
    check_same(&Tokenizer::from_json("demo", json).expect("a tokenizer"), &as_gguf(json, "llama", None));
    let Some(folder) = shared("models/stories-gpt2") else { return };
    let json = fs::read(folder.join("tokenizer.json")).expect("a file");
    let expected = Tokenizer::from_json("stories-gpt2", &json).expect("a tokenizer");
    check_same(&expected, &as_gguf(&json, "gpt2", Some("gpt-2")));
}

/// Compares with the ids that llama.cpp's tests expect of its vocabulary files. WGPT_LLAMA_CPP names a folder
/// with llama.cpp's sources.
#[test]
fn gguf_vocabularies_give_the_ids_that_llama_cpp_expects() {
    let Some(folder) = std::env::var_os("WGPT_LLAMA_CPP") else {
        return eprintln!("skipped: WGPT_LLAMA_CPP does not name llama.cpp's sources");
    };
    for name in [
        "command-r",
        "deepseek-coder",
        "deepseek-llm",
        "falcon",
        "gpt-2",
        "llama-bpe",
        "llama-spm",
        "mpt",
        "phi-3",
        "qwen2",
        "qwen35",
        "refact",
        "starcoder",
    ] {
        let file = Path::new(&folder).join(format!("models/ggml-vocab-{name}.gguf"));
        let beside = |extension: &str| {
            fs::read_to_string(format!("{}.{extension}", file.display())).expect("texts and ids beside it")
        };
        let tokenizer = Tokenizer::from_gguf(&Gguf::open(&file).expect("a GGUF file")).expect("a tokenizer");
        let (texts, ids) = (beside("inp"), beside("out"));
        let texts = texts.split("\n__ggml_vocab_test__\n");
        let mut compared = 0;
        for (text, ids) in texts.zip(ids.lines()) {
            let expected: Vec<u32> = ids.split_whitespace().map(|id| id.parse().expect("an id")).collect();
            let got = tokenizer.encode(text, false).expect("ids");
            assert_eq!(got, expected, "{name}: {text:?}");
            compared += 1;
        }
        assert!(compared > 40, "{name}: {compared} texts");
    }
}
