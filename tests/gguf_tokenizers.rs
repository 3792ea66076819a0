//! Tokenizers of GGUF files as others write them: texts that are not UTF-8, ids with the same text, merges
//! that lead nowhere, tokens of another type than their text says.

use wgpt::{
    error::Kind,
    tokenizer::{Tokenizer, gguf_ends},
    weights::{Bytes, Gguf, Writer},
};

/// Adds a list of texts, which need not be UTF-8.
fn texts(file: &mut Writer, key: &str, texts: &[&[u8]]) {
    let (array, string) = (9u32.to_le_bytes(), 8u32.to_le_bytes());
    let mut entry = [&array[..], &string, &(texts.len() as u64).to_le_bytes()].concat();
    for text in texts {
        entry.extend((text.len() as u64).to_le_bytes());
        entry.extend(*text);
    }
    file.copy(&format!("tokenizer.ggml.{key}"), &entry);
}

/// A file with a vocabulary whose tokens are all ordinary text, to which `more` adds entries.
fn gguf(model: &str, tokens: &[&[u8]], more: impl FnOnce(&mut Writer)) -> Gguf {
    let mut file = Writer::default();
    file.text("tokenizer.ggml.model", model);
    texts(&mut file, "tokens", tokens);
    match model {
        "llama" => {
            let scores: Vec<f32> = (0..tokens.len()).map(|id| -(id as f32)).collect();
            file.numbers("tokenizer.ggml.scores", &scores);
        }
        _ => file.text("tokenizer.ggml.pre", "gpt-2"),
    }
    more(&mut file);
    Gguf::read("file", Bytes::new(file.header())).expect("a GGUF file")
}

fn byte_level(tokens: &[&[u8]], merges: &[&[u8]]) -> Tokenizer {
    let gguf = gguf("gpt2", tokens, |file| texts(file, "merges", merges));
    Tokenizer::from_gguf(&gguf).expect("a tokenizer")
}

/// SentencePiece, without a space before each text.
fn sentence_piece(tokens: &[&[u8]]) -> Tokenizer {
    let gguf = gguf("llama", tokens, |file| {
        file.bool("tokenizer.ggml.add_space_prefix", false);
        file.bool("tokenizer.ggml.add_bos_token", false);
    });
    Tokenizer::from_gguf(&gguf).expect("a tokenizer")
}

#[track_caller]
fn encodes(tokenizer: &Tokenizer, text: &str, ids: &[u32]) {
    assert_eq!(tokenizer.encode(text, true).expect("ids"), ids, "{text}");
}

/// A token that is a bare byte stands for that byte, and the name of a file may be in Latin-1.
#[test]
fn texts_need_not_be_utf8() {
    let bytes: &[&[u8]] = &[b"<unk>", b"a", b"\xc3", b"\xa9"];
    for tokenizer in [byte_level(bytes, &[]), sentence_piece(bytes)] {
        encodes(&tokenizer, "a\u{e9}", &[1, 2, 3]);
        assert_eq!(tokenizer.decode(&[1, 2, 3, 1], false), "a\u{e9}a");
    }
    // Several bytes that are no UTF-8 are those bytes in byte-level BPE.
    let tokenizer = byte_level(&[b"a", b"\xc3\xa9\xc3", b"\xa9"], &[]);
    assert_eq!(tokenizer.decode(&[1, 2], false), "\u{e9}\u{e9}");
    let named = gguf("gpt2", &[b"a"], |file| {
        let name = b"caf\xe9";
        let entry = [&8u32.to_le_bytes()[..], &(name.len() as u64).to_le_bytes(), name].concat();
        file.copy("general.name", &entry);
    });
    assert_eq!(named.string("general.name").expect("a text"), Some("caf\u{fffd}"));
}

/// Of several ids with the same text, each is that text, and the first is what the text becomes. An id
/// without a text is none.
#[test]
fn ids_with_the_same_text_are_all_read() {
    let tokens: &[&[u8]] = &[b"<unk>", b"a", b"b", b"a", b"", b"", b"ab", b"ab"];
    for tokenizer in [byte_level(tokens, &[b"a b"]), sentence_piece(tokens)] {
        assert_eq!(tokenizer.vocab_size(), tokens.len());
        assert_eq!(tokenizer.decode(&[3, 2, 4, 7, 5, 1, 6], false), "ababaab");
        encodes(&tokenizer, "abba", &[6, 2, 1]);
    }
    // The second of two control tokens is a control token too.
    let twice = gguf("gpt2", &[b"a", b"<x>", b"<x>"], |file| {
        texts(file, "merges", &[]);
        file.counts("tokenizer.ggml.token_type", &[1, 3, 3]);
    });
    let tokenizer = Tokenizer::from_gguf(&twice).expect("a tokenizer");
    encodes(&tokenizer, "a<x>", &[0, 1]);
    assert!(tokenizer.is_special(1) && tokenizer.is_special(2));
    assert_eq!(tokenizer.decode(&[0, 2, 1], false), "a<x><x>");
    assert_eq!(tokenizer.decode(&[0, 2, 1], true), "a");
}

/// Merges of texts that are no tokens, or into one that is none, are left out. Of equal ones the first
/// counts.
#[test]
fn merges_that_lead_nowhere_are_left_out() {
    let tokens: &[&[u8]] = &[b"a", b"b", b"c", b"ab", b"bc"];
    let tokenizer = byte_level(tokens, &[b"a x", b"c a", b"ab", b"", b"\xff b", b"a b", b"b c", b"a b"]);
    encodes(&tokenizer, "abca", &[3, 2, 0]);
}

/// A token that ends an answer by its text does so, and is no text, whatever its type. Where answers have
/// several parts, the token that ends a part does not end the answer.
#[test]
fn tokens_end_an_answer_by_their_texts() {
    let tokens: &[&[u8]] = &[b"a", b"<|im_end|>", b"<|endoftext|>", b"<|end|>", b"</s>", b"[stop]"];
    let ends = |tokens: &[&[u8]]| {
        gguf("gpt2", tokens, |file| {
            texts(file, "merges", &[]);
            file.counts("tokenizer.ggml.token_type", &vec![1; tokens.len()]);
            file.count("tokenizer.ggml.eos_token_id", 2);
            file.count("tokenizer.ggml.eot_token_id", 5);
        })
    };
    let file = ends(tokens);
    assert_eq!(gguf_ends(&file).expect("ids"), [2, 5, 1, 3]);
    let tokenizer = Tokenizer::from_gguf(&file).expect("a tokenizer");
    encodes(&tokenizer, "a<|im_end|>a", &[0, 1, 0]);
    assert_eq!([1, 2, 3, 4].map(|id| tokenizer.is_special(id)), [true, true, true, false]);
    let parts = [tokens, &[b"<|return|>", b"<|call|>"]].concat();
    assert_eq!(gguf_ends(&ends(&parts)).expect("ids"), [2, 5, 1, 6, 7]);
}

/// A pre-tokenizer's name says how texts are split, and more: that they begin with the start token, that a
/// word that is a token needs no merges, that they are composed first.
#[test]
fn a_name_says_more_than_how_texts_are_split() {
    let tokens: &[&[u8]] = &[b"<s>", b"a", b"b", b"ab", "Ã©".as_bytes(), "Ã".as_bytes(), "©".as_bytes()];
    let named = |name: &str| {
        let mut file = Writer::default();
        file.text("tokenizer.ggml.model", "gpt2");
        file.text("tokenizer.ggml.pre", name);
        file.count("tokenizer.ggml.bos_token_id", 0);
        texts(&mut file, "tokens", tokens);
        texts(&mut file, "merges", &["Ã ©".as_bytes()]);
        Tokenizer::from_gguf(&Gguf::read("file", Bytes::new(file.header())).expect("a GGUF file"))
    };
    let read = |name: &str| named(name).expect("a tokenizer");
    encodes(&read("llama3"), "ab", &[0, 3]);
    encodes(&read("glm4"), "ab", &[3]);
    encodes(&read("smaug-bpe"), "ab", &[1, 2]);
    // The other letters of "e\u{301}" are no tokens here.
    encodes(&read("qwen2"), "e\u{301}", &[4]);
    encodes(&read("deepseek-r1-qwen"), "e\u{301}", &[]);
    for name in ["gemma4", "of-tomorrow"] {
        let error = named(name).err().expect("a name that is not read");
        assert_eq!(error.kind(), Kind::Model);
        let wanted = format!("file: tokenizer.ggml.pre is {name}, but no pre-tokenizer of that name is read");
        assert!(error.to_string().starts_with(&wanted), "{error}");
    }
}

/// Files of before GGUF named the special tokens, or had scores, are read as llama.cpp reads them.
#[test]
fn what_old_files_do_not_say_is_as_llama_cpp_takes_it() {
    let tokens: &[&[u8]] = &[b"<unk>", b"<s>", b"</s>", "\u{2581}".as_bytes(), b"a", b"b", b"ab", b"abb"];
    let mut file = Writer::default();
    file.text("tokenizer.ggml.model", "llama");
    texts(&mut file, "tokens", tokens);
    let gguf = Gguf::read("file", Bytes::new(file.header())).expect("a GGUF file");
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("a tokenizer");
    // With equal scores, the pair on the left merges first.
    encodes(&tokenizer, "abb", &[1, 3, 7]);
    encodes(&tokenizer, "c", &[1, 3, 0]);
    assert_eq!(gguf_ends(&gguf).expect("ids"), [2]);
}

/// Unused tokens, and those of no type, are never shown; llama.cpp's `token_to_piece` leaves them out too.
#[test]
fn unused_tokens_have_no_text() {
    let tokens: &[&[u8]] = &[b"a", b"b", b"[PAD2]", b"[PAD3]"];
    for model in ["gpt2", "llama"] {
        let gguf = gguf(model, tokens, |file| {
            texts(file, "merges", &[]);
            file.counts("tokenizer.ggml.token_type", &[1, 1, 5, 0]);
        });
        let tokenizer = Tokenizer::from_gguf(&gguf).expect("a tokenizer");
        assert_eq!(tokenizer.decode(&[0, 2, 1, 3, 0], false), "aba", "{model}");
        let mut stream = tokenizer.stream(&[0]);
        let text: String = [2, 1, 3].iter().map(|id| stream.push(*id)).collect();
        assert_eq!(text + &stream.finish(), "b", "{model}");
    }
}

/// Types, and scores, may be more than the tokens, but not fewer.
#[test]
fn lists_that_are_too_short_are_refused() {
    let tokens: &[&[u8]] = &[b"a", b"b"];
    let read = |types: &[i32], scores: &[f32]| {
        let mut file = Writer::default();
        file.text("tokenizer.ggml.model", "llama");
        texts(&mut file, "tokens", tokens);
        file.counts("tokenizer.ggml.token_type", types);
        file.numbers("tokenizer.ggml.scores", scores);
        let gguf = Gguf::read("file", Bytes::new(file.header())).expect("a GGUF file");
        Tokenizer::from_gguf(&gguf).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(read(&[1; 3], &[0.0; 3]), Ok(()));
    let short = "is an array of 1, but there are 2 tokens";
    assert_eq!(read(&[1], &[0.0; 2]), Err(format!("file: tokenizer.ggml.token_type {short}")));
    assert_eq!(read(&[1; 2], &[0.0]), Err(format!("file: tokenizer.ggml.scores {short}")));
}
