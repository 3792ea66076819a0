//! Converts GGUF metadata to an equivalent tokenizer.json for the `tokenizers` crate.

use super::{BYTE, CONTROL, NORMAL, PreTokenizer, UNKNOWN, USER_DEFINED, ends, pre_tokenizers, role};
use crate::tokenizer::bytes::spelt;
use crate::{
    error::{Error, Result},
    tokenizer::Tokenizer,
    weights::Gguf,
};
use serde_json::{Map, Value, json};
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

/// Begins what is added to a token's text where an earlier token has the same text. What follows is the
/// token's id.
const AGAIN: char = '\u{E000}';

/// The tokens in the order of their ids, each spelt in its own way, and their types.
struct Vocabulary {
    tokens: Vec<String>,
    types: Vec<i32>,
    /// Whether some token is spelt with `AGAIN`.
    repeats: bool,
}

impl Tokenizer {
    /// The tokenizer that a GGUF file's metadata describes.
    ///
    /// # Errors
    /// Of the kind Model where the metadata is missing, wrong or not supported.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let key = "tokenizer.ggml.model";
        let json = match gguf.string(key)? {
            Some("gpt2") => byte_level(gguf)?,
            Some("llama") => sentence_piece(gguf)?,
            _ => return Err(gguf.wrong(key, "the tokenizers there are: gpt2, llama")),
        };
        let tokenizer = Self::from_json(&format!("{}'s tokenizer", gguf.name), json.to_string().as_bytes())?;
        let types = types(gguf)?.into_iter().flatten().zip(0..);
        let without_text = types.filter(|(kind, _)| !WITH_TEXT.contains(kind)).map(|(_, id)| id);
        Ok(Self { silent: without_text.collect(), ..tokenizer })
    }
}

/// The types of tokens that llama.cpp shows. Those that are unused, or of no type, it reads and never shows.
const WITH_TEXT: [i32; 5] = [NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE];

/// The tokens' types, where the file says them.
fn types(gguf: &Gguf) -> Result<Option<Vec<i32>>> {
    let types = gguf.numbers("tokenizer.ggml.token_type")?;
    Ok(types.map(|types| types.into_iter().map(|kind| kind as i32).collect()))
}

impl Vocabulary {
    /// Reads the tokens. `bare` spells a token whose text is no UTF-8.
    fn read(gguf: &Gguf, bare: fn(&[u8]) -> String) -> Result<Self> {
        let key = "tokenizer.ggml.tokens";
        let texts = gguf.texts(key)?.ok_or_else(|| gguf.wrong(key, "a model needs its tokenizer"))?;
        let mut types = types(gguf)?.unwrap_or_else(|| vec![NORMAL; texts.len()]);
        if types.len() < texts.len() {
            let why = format!("there are {} tokens", texts.len());
            return Err(gguf.wrong("tokenizer.ggml.token_type", why));
        }
        // Some files have them as ordinary text, so that they would end no answer.
        ends::named(&texts).into_iter().for_each(|id| types[id] = CONTROL);
        let (mut taken, mut repeats) = (HashSet::new(), false);
        let spell = |(id, text): (usize, &&[u8])| {
            let mut token = std::str::from_utf8(text).map_or_else(|_| bare(text), str::to_owned);
            if token.is_empty() || taken.contains(&token) {
                token += &format!("{AGAIN}{id}");
                repeats = true;
            }
            taken.insert(token.clone());
            token
        };
        let tokens = texts.iter().enumerate().map(spell).collect();
        Ok(Self { tokens, types, repeats })
    }

    /// Each token's id, by its spelling.
    fn ids(&self) -> HashMap<&str, usize> {
        self.tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect()
    }

    /// The vocabulary in a tokenizer.json.
    fn json(&self) -> Value {
        Value::Object(self.tokens.iter().enumerate().map(|(id, t)| (t.clone(), json!(id))).collect())
    }

    /// Tokens that are matched in a text before it is split.
    fn added(&self) -> Vec<Value> {
        let is_added = |id: &usize| [UNKNOWN, CONTROL, USER_DEFINED].contains(&self.types[*id]);
        let added = |id: usize| {
            json!({
                "id": id, "content": self.tokens[id], "special": self.types[id] != USER_DEFINED,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        };
        (0..self.tokens.len()).filter(is_added).map(added).collect()
    }

    /// A decoder that runs these steps after it removes what tells tokens with the same text apart.
    fn decoder(&self, mut steps: Vec<Value>) -> Value {
        if self.repeats {
            let again = json!({"Regex": format!("{AGAIN}[0-9]+$")});
            steps.insert(0, json!({"type": "Replace", "pattern": again, "content": ""}));
        }
        json!({"type": "Sequence", "decoders": steps})
    }
}

/// A post-processor that adds the start and end tokens around every text.
fn template(gguf: &Gguf, vocabulary: &Vocabulary, starts: bool) -> Result<Value> {
    let token = |name: &str, by_default: bool| -> Result<Option<(u32, String)>> {
        let wanted = gguf.bool(&format!("tokenizer.ggml.add_{name}_token"))?.unwrap_or(by_default);
        let id = role(gguf, name)?.filter(|_| wanted);
        Ok(id.and_then(|id| Some((id, vocabulary.tokens.get(id as usize)?.clone()))))
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

/// The pre-tokenizer that the file names.
fn pre_tokenizer(gguf: &Gguf) -> Result<&'static PreTokenizer> {
    let key = "tokenizer.ggml.pre";
    let name = gguf.string(key)?.filter(|name| !name.is_empty()).unwrap_or("default");
    PreTokenizer::named(name).ok_or_else(|| {
        gguf.wrong(
            key,
            "no pre-tokenizer of that name is read: the model's Hugging Face folder can be read in its place",
        )
    })
}

/// The pairs that merge, in order of priority. A pair that is no two tokens, or does not merge into a third,
/// is left out, and so is a pair that was there before.
fn merges(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Vec<[String; 2]>> {
    let key = "tokenizer.ggml.merges";
    let pairs = gguf.strings(key)?.ok_or_else(|| gguf.wrong(key, "byte-level BPE needs its merges"))?;
    let (ids, mut known) = (vocabulary.ids(), HashSet::new());
    let merge = |pair: &Cow<str>| {
        // A token may begin with a space, so the first character never parts the two.
        let first = pair.chars().next()?.len_utf8();
        let (left, right) = pair.split_at(first + pair[first..].find(' ')?);
        let (left, right) = (left.to_owned(), right[1..].to_owned());
        let is_token = |text: &str| ids.contains_key(text);
        let merges = is_token(&left) && is_token(&right) && is_token(&format!("{left}{right}"));
        (merges && known.insert([left.clone(), right.clone()])).then_some([left, right])
    };
    Ok(pairs.iter().filter_map(merge).collect())
}

/// The tokenizer.json of a byte-level BPE tokenizer. As in llama.cpp, `add_space_prefix` is for SentencePiece
/// only.
fn byte_level(gguf: &Gguf) -> Result<Value> {
    let vocabulary = Vocabulary::read(gguf, spelt)?;
    let pre_tokenizer = pre_tokenizer(gguf)?;
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": vocabulary.added(),
        "normalizer": pre_tokenizer.normalizer(),
        "pre_tokenizer": pre_tokenizer.json(),
        "post_processor": template(gguf, &vocabulary, pre_tokenizer.starts)?,
        "decoder": vocabulary.decoder(vec![pre_tokenizers::byte_level()]),
        "model": {
            "type": "BPE", "vocab": vocabulary.json(), "merges": merges(gguf, &vocabulary)?,
            "ignore_merges": pre_tokenizer.ignores_merges,
            "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false,
        },
    }))
}

/// The tokenizer.json of SentencePiece BPE. GGUF stores scores instead of merges: two pieces merge where
/// their union is a token, and the token with the highest score merges first.
fn sentence_piece(gguf: &Gguf) -> Result<Value> {
    let vocabulary = Vocabulary::read(gguf, |text| match text {
        [byte] => format!("<{byte:#04X}>"),
        text => String::from_utf8_lossy(text).into_owned(),
    })?;
    let key = "tokenizer.ggml.scores";
    // As in llama.cpp, without scores all are alike.
    let scores = gguf.numbers(key)?.unwrap_or_else(|| vec![0.0; vocabulary.tokens.len()]);
    if scores.len() < vocabulary.tokens.len() {
        return Err(gguf.wrong(key, format!("there are {} tokens", vocabulary.tokens.len())));
    }
    let ids = vocabulary.ids();
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
    let unknown = role(gguf, "unknown")?.and_then(|id| vocabulary.tokens.get(id as usize));
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": vocabulary.added(),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": template(gguf, &vocabulary, true)?,
        "decoder": vocabulary.decoder(decoders),
        "model": {
            "type": "BPE", "vocab": vocabulary.json(), "merges": merges, "ignore_merges": false,
            "dropout": null, "unk_token": unknown,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": true,
        },
    }))
}
