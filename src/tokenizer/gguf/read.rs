//! Converts GGUF metadata to an equivalent tokenizer.json for the `tokenizers` crate.

use super::{CONTROL, PRE_TOKENIZERS, UNKNOWN, USER_DEFINED};
use crate::{
    error::{Error, Result},
    tokenizer::Tokenizer,
    weights::Gguf,
};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// The tokens' texts and their types (`tokenizer.ggml.token_type`).
struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    types: Vec<f64>,
}

impl Tokenizer {
    /// The tokenizer that a GGUF file's metadata describes.
    ///
    /// # Errors
    /// Of the kind Model where the metadata is missing, wrong or not supported.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let tokens = gguf.strings("tokenizer.ggml.tokens")?;
        let tokens =
            tokens.ok_or_else(|| gguf.wrong("tokenizer.ggml.tokens", "a model needs its tokenizer"))?;
        let types = gguf.numbers("tokenizer.ggml.token_type")?.unwrap_or_default();
        let vocabulary = Vocabulary { tokens, types };
        let key = "tokenizer.ggml.model";
        let json = match gguf.string(key)? {
            Some("gpt2") => byte_level(gguf, &vocabulary)?,
            Some("llama") => sentence_piece(gguf, &vocabulary)?,
            _ => return Err(gguf.wrong(key, "the tokenizers there are: gpt2, llama")),
        };
        Self::from_json(&format!("{}'s tokenizer", gguf.name), json.to_string().as_bytes())
    }
}

impl Vocabulary<'_> {
    fn ids(&self) -> Value {
        // Of several tokens with the same text, the first id counts.
        let ids = self.tokens.iter().enumerate().rev().map(|(id, token)| (token.to_string(), json!(id)));
        Value::Object(ids.collect::<Map<_, _>>())
    }

    /// Tokens that are matched in a text before it is split.
    fn added(&self) -> Vec<Value> {
        let is_added = |(id, kind): &(usize, &f64)| {
            [UNKNOWN, CONTROL, USER_DEFINED].map(f64::from).contains(kind)
                && self.tokens.get(*id).is_some_and(|t| !t.is_empty())
        };
        let added = |(id, kind): (usize, &f64)| {
            json!({
                "id": id, "content": self.tokens[id], "special": *kind != f64::from(USER_DEFINED),
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        };
        self.types.iter().enumerate().filter(is_added).map(added).collect()
    }
}

/// A post-processor that adds the start and end tokens around every text.
fn template(gguf: &Gguf, vocabulary: &Vocabulary, starts: bool) -> Result<Value> {
    let token = |role: &str, by_default: bool| -> Result<Option<(u32, String)>> {
        let wanted = gguf.bool(&format!("tokenizer.ggml.add_{role}_token"))?.unwrap_or(by_default);
        let id = gguf.id(&format!("tokenizer.ggml.{role}_token_id")).filter(|_| wanted);
        Ok(id.and_then(|id| Some((id, (*vocabulary.tokens.get(id as usize)?).to_owned()))))
    };
    let (bos, eos) = (token("bos", starts)?, token("eos", false)?);
    let piece = |token: &Option<(u32, String)>| {
        token.as_ref().map(|(_, name)| json!({"SpecialToken": {"id": name, "type_id": 0}}))
    };
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let single: Vec<_> = [piece(&bos), Some(text), piece(&eos)].into_iter().flatten().collect();
    let special = [bos, eos].into_iter().flatten();
    let special: Map<_, _> = special
        .map(|(id, name)| (name.clone(), json!({"id": name, "ids": [id], "tokens": [name]})))
        .collect();
    Ok(match special.is_empty() {
        true => Value::Null,
        false => json!({"type": "TemplateProcessing", "single": single, "pair": [
            {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
        ], "special_tokens": special}),
    })
}

/// A pre-tokenizer that splits a text at the matches of a pattern. Matches are pieces too.
fn split(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

/// The pre-tokenizers that split a text into words.
fn pre_tokenizer(gguf: &Gguf) -> Result<Vec<Value>> {
    let key = "tokenizer.ggml.pre";
    let name = gguf.string(key)?.unwrap_or("default");
    match PRE_TOKENIZERS.iter().find(|(known, _)| *known == name) {
        Some((_, patterns)) => Ok(patterns.iter().map(|pattern| split(pattern)).collect()),
        None => {
            let known = PRE_TOKENIZERS.map(|(known, _)| known).join(", ");
            Err(gguf.wrong(key, format!("the pre-tokenizers there are: {known}")))
        }
    }
}

/// The tokenizer.json of a byte-level BPE tokenizer.
fn byte_level(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Value> {
    let key = "tokenizer.ggml.merges";
    let merges = gguf.strings(key)?.ok_or_else(|| gguf.wrong(key, "byte-level BPE needs its merges"))?;
    let byte_level = json!({
        "type": "ByteLevel",
        "add_prefix_space": gguf.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(false),
        "trim_offsets": true, "use_regex": false,
    });
    let mut steps = pre_tokenizer(gguf)?;
    steps.push(byte_level.clone());
    let llama3 = gguf.string("tokenizer.ggml.pre")? == Some("llama-bpe");
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": vocabulary.added(),
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": template(gguf, vocabulary, llama3)?,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "vocab": vocabulary.ids(), "merges": merges, "ignore_merges": llama3,
            "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false,
        },
    }))
}

/// The tokenizer.json of SentencePiece BPE. GGUF stores scores instead of merges: two pieces merge where
/// their union is a token, and the token with the highest score merges first.
fn sentence_piece(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Value> {
    let key = "tokenizer.ggml.scores";
    let scores = gguf.numbers(key)?.ok_or_else(|| gguf.wrong(key, "SentencePiece needs its scores"))?;
    if scores.len() != vocabulary.tokens.len() {
        return Err(gguf.wrong(key, format!("there are {} tokens", vocabulary.tokens.len())));
    }
    let ids: HashMap<&str, usize> =
        vocabulary.tokens.iter().enumerate().rev().map(|(id, t)| (*t, id)).collect();
    let mut merges: Vec<(f64, usize, usize, [&str; 2])> = Vec::new();
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        // Longer tokens are refused: the work grows with the square of a token's length.
        if token.len() > 1024 {
            return Err(Error::model(format!("{}: a token has {} bytes", gguf.name, token.len())));
        }
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(left_id), true) = (ids.get(left), ids.contains_key(right)) {
                merges.push((scores[id], id, *left_id, [left, right]));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let merges: Vec<_> = merges.into_iter().map(|(.., pair)| pair).collect();
    let prefix = gguf.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unknown = gguf.id("tokenizer.ggml.unknown_token_id").unwrap_or(0);
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": vocabulary.added(),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": template(gguf, vocabulary, true)?,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "vocab": vocabulary.ids(), "merges": merges, "ignore_merges": false,
            "dropout": null, "unk_token": vocabulary.tokens.get(unknown as usize),
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": true,
        },
    }))
}
