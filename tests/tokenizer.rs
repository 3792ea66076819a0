//! Text to ids and back, against transformers.

use crate::support::shared;
use wgpt::{model::Model, tokenizer::Tokenizer};

/// The real GPT-1 and GPT-2 vocabularies: ids of awkward texts, and what they decode to.
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
        let tokenizer = Tokenizer::open(&folder, family).expect("a tokenizer");
        let expected = std::fs::read_to_string(folder.join("expected.json")).expect("expected.json");
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

/// A stream's pieces are whole characters and add up to the text.
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
    // Beyond its 512 pieces the vocabulary spells in bytes: é is two of them, € three, 🦀 four.
    for continuation in [" there was", "s, and é", "€ 🦀 crab", "\n\nThe end"] {
        let all = tokenizer.encode(&format!("Once upon a time{continuation}"), true).expect("ids");
        let shared = prompt.iter().zip(&all).take_while(|(a, b)| a == b).count();
        let (head, tail) = all.split_at(shared);
        let expected = format!("Once upon a time{continuation}");
        let expected = expected.strip_prefix(&tokenizer.decode(head, true)).expect("the text goes on");
        check_stream(&tokenizer, head, tail, expected);
    }
}
