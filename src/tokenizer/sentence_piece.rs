//! Tokenizers from SentencePiece's tokenizer.model, a protocol buffer
//! (<https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto>).

use super::{Settings, Tokenizer, classes};
use crate::{
    error::{Error, Result},
    files,
};
use prost::Message;
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path};

/// The fields of a model that are read, with their numbers in the protocol buffer.
#[derive(Message)]
struct Model {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
}

#[derive(Message)]
struct Piece {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(int32, tag = "3")]
    kind: i32,
}

/// A piece's kind: a special token, or one that users added.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

#[derive(Message)]
struct Trainer {
    #[prost(int32, tag = "3")]
    kind: i32,
}

/// BPE as the kind of a model.
const BPE_MODEL: i32 = 2;

/// Reads the model as transformers' LlamaTokenizer does: two pieces merge where their union is a piece, and
/// the piece with the lowest id merges first.
///
/// # Errors
/// Of the kind Model where the file is damaged, its model is not BPE, or the settings' class is another.
pub(super) fn read(path: &Path, settings: &Settings) -> Result<Tokenizer> {
    let name = path.display();
    if !["", "LlamaTokenizer", "CodeLlamaTokenizer"].contains(&settings.class.as_str()) {
        let class = &settings.class;
        return Err(Error::model(format!(
            "{name} is there, and {class} is named, but only LlamaTokenizer is read from such a file: fetch \
             the model's tokenizer.json"
        )));
    }
    let model = Model::decode(&files::read(path)?[..]).map_err(|e| {
        Error::model(format!("{name} is not a SentencePiece model: {e}; download it again")).because(e)
    })?;
    if model.pieces.is_empty() || model.trainer.as_ref().is_none_or(|trainer| trainer.kind != BPE_MODEL) {
        return Err(Error::model(format!(
            "{name} is not a SentencePiece model of BPE: fetch the model's tokenizer.json"
        )));
    }
    let json = tokenizer_json(&model.pieces, settings).to_string();
    Tokenizer::from_json(&name.to_string(), json.as_bytes())
}

/// The equivalent tokenizer.json.
fn tokenizer_json(pieces: &[Piece], settings: &Settings) -> Value {
    let ids: BTreeMap<&str, usize> = pieces.iter().enumerate().map(|(id, p)| (p.text.as_str(), id)).collect();
    let mut merges = Vec::new();
    for (text, id) in &ids {
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if ids.contains_key(left) && ids.contains_key(right) {
                merges.push((*id, at, [left, right]));
            }
        }
    }
    merges.sort();
    let merges: Vec<_> = merges.into_iter().map(|(.., pair)| pair).collect();
    let settings = Settings { class: "LlamaTokenizer".to_owned(), ..settings.clone() };
    let mut json = classes::tokenizer_json(&settings, json!(ids), json!(merges)).expect("a known class");
    let added = pieces.iter().enumerate().filter(|(_, p)| [CONTROL, USER_DEFINED].contains(&p.kind));
    let added = added.map(|(id, piece)| {
        json!({
            "id": id, "content": piece.text, "special": piece.kind == CONTROL,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    });
    json["added_tokens"] = added.collect();
    json
}
