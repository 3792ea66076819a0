//! Tokenizers from SentencePiece's tokenizer.model, as transformers 5 makes them: by a class, which leaves
//! most of the file's settings aside, or by the file alone.

mod model;

use super::{Settings, Tokenizer, classes};
use crate::error::{Error, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
pub(super) use model::Model;
use model::{BPE_MODEL, NORMAL, Piece, UNIGRAM_MODEL, USER_DEFINED};
use serde_json::{Value, json};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// The classes that are read from such a file.
const CLASSES: [&str; 3] = ["LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer"];

/// Reads the model as the settings' class does, or by the file alone where they name none.
///
/// # Errors
/// Of the kind Model where the file is damaged, or the class is not known or of another kind.
pub(super) fn read(path: &Path, settings: &Settings) -> Result<Tokenizer> {
    let (name, class) = (path.display(), &settings.class);
    let model = Model::open(path)?;
    let refused = |why: &str| Error::model(format!("{name} {why}: fetch the model's tokenizer.json"));
    let json = match (settings.by_file, model.trainer.kind()) {
        (true, UNIGRAM_MODEL | BPE_MODEL) => by_file(&model, settings),
        (true, _) => return Err(refused("is a SentencePiece model of another kind than BPE and unigram")),
        (false, _) if !CLASSES.contains(&class.as_str()) => {
            return Err(refused(&format!(
                "is there, and {class} is named, but only these classes are read from such a file, {}",
                CLASSES.join(", ")
            )));
        }
        (false, BPE_MODEL) => by_class(&model, settings),
        (false, _) => {
            return Err(refused(&format!("is not a SentencePiece model of BPE, which {class} needs")));
        }
    };
    Tokenizer::from_json(&name.to_string(), json.to_string().as_bytes())
}

/// The equivalent tokenizer.json of a class: two pieces merge where their union is a piece, and the piece
/// with the lowest id merges first.
fn by_class(model: &Model, settings: &Settings) -> Value {
    let ids: BTreeMap<&str, usize> =
        model.pieces.iter().enumerate().map(|(id, piece)| (piece.text.as_str(), id)).collect();
    let merges = merges(&ids, |id, at, _| (id, at));
    classes::tokenizer_json(settings, json!(ids), merges).expect("a known class")
}

/// The pairs of texts whose union is among them too, by a rank that follows from the union's id, the length
/// of the pair's left side, and the pair.
fn merges<'t, R: Ord>(
    ids: &BTreeMap<&'t str, usize>,
    rank: impl Fn(usize, usize, [&'t str; 2]) -> R,
) -> Value {
    let mut merges = Vec::new();
    for (text, id) in ids {
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if ids.contains_key(left) && ids.contains_key(right) {
                merges.push((rank(*id, at, [left, right]), [left, right]));
            }
        }
    }
    merges.sort();
    merges.into_iter().map(|(_, pair)| json!(pair)).collect()
}

/// The unigram model in a tokenizer.json.
fn unigram(model: &Model) -> Value {
    let Model { pieces, trainer, .. } = model;
    let vocab: Vec<_> = pieces.iter().map(|piece| json!([piece.text, piece.score])).collect();
    json!({
        "type": "Unigram", "unk_id": trainer.unk_id, "vocab": vocab, "byte_fallback": trainer.byte_fallback,
    })
}

/// The BPE model in a tokenizer.json. Ordinary pieces merge, the one with the highest score first; those of
/// users are whole words.
fn bpe(model: &Model, texts: &[&str], has_users: bool) -> Value {
    let Model { pieces, trainer, .. } = model;
    let ids: BTreeMap<_, _> = texts.iter().enumerate().map(|(id, text)| (*text, id)).collect();
    let normal = model.pieces(&[NORMAL]).map(|(id, _)| (texts[id], id)).collect();
    let rank = ranks(pieces);
    json!({
        "type": "BPE", "vocab": ids, "merges": merges(&normal, |id, _, pair| (rank[id], pair)),
        "ignore_merges": has_users, "dropout": null, "unk_token": trainer.unk_piece(),
        "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
        "byte_fallback": trainer.byte_fallback,
    })
}

/// Each piece's rank: the one with the highest score is the first, and of equal ones that with the lowest id.
fn ranks(pieces: &[Piece]) -> Vec<usize> {
    let mut ids: Vec<usize> = (0..pieces.len()).collect();
    ids.sort_by(|a, b| pieces[*b].score.total_cmp(&pieces[*a].score));
    let mut ranks = vec![0; pieces.len()];
    ids.into_iter().enumerate().for_each(|(rank, id)| ranks[id] = rank);
    ranks
}

/// The equivalent tokenizer.json by what the file says: how texts are normalized, what a piece's score is,
/// and that pieces of users never merge.
fn by_file(model: &Model, settings: &Settings) -> Value {
    let Model { pieces, trainer, normalizer } = model;
    let texts = texts(pieces, settings);
    let users: Vec<&str> = model.pieces(&[USER_DEFINED]).map(|(id, _)| texts[id]).collect();
    let is_legacy = settings.legacy.unwrap_or(true);
    let replace =
        |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
    let mut normalizers = Vec::new();
    if !normalizer.charsmap.is_empty() {
        let charsmap = BASE64_STANDARD.encode(&normalizer.charsmap);
        normalizers.push(json!({"type": "Precompiled", "precompiled_charsmap": charsmap}));
    }
    if normalizer.remove_extra_whitespaces() {
        normalizers.push(replace(json!({"Regex": r"\A +| +\z"}), ""));
        normalizers.push(replace(json!({"Regex": " {2,}"}), " "));
    }
    if normalizer.escape_whitespaces() {
        normalizers.push(replace(json!({"String": " "}), "▁"));
    }
    // The blank comes before one that the text has, too.
    if model.adds_a_blank() && is_legacy {
        normalizers.push(replace(json!({"Regex": r"\A▁"}), "▁▁"));
    }
    let mut pre_tokenizers = Vec::new();
    if model.adds_a_blank() {
        let scheme = if is_legacy { "always" } else { "first" };
        pre_tokenizers
            .push(json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false}));
    }
    if !users.is_empty() {
        let pattern = json!({"Regex": any_of(&users)});
        pre_tokenizers
            .push(json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false}));
    }
    let mut decoders = vec![replace(json!({"String": "▁"}), " ")];
    decoders.extend(trainer.byte_fallback.then(|| json!({"type": "ByteFallback"})));
    if model.adds_a_blank() || trainer.byte_fallback {
        decoders.push(json!({"type": "Fuse"}));
    }
    if model.adds_a_blank() {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre_tokenizers},
        "post_processor": null, "decoder": {"type": "Sequence", "decoders": decoders},
        "model": match trainer.kind() {
            UNIGRAM_MODEL => unigram(model),
            _ => bpe(model, &texts, !users.is_empty()),
        },
    })
}

/// The pieces' texts, with those that the settings list in their places, unless such a text is a piece that
/// keeps its own id.
fn texts<'a>(pieces: &'a [Piece], settings: &'a Settings) -> Vec<&'a str> {
    let listed = |id: usize| settings.listed.get(&u32::try_from(id).ok()?);
    let kept = (0..pieces.len()).filter(|id| listed(*id).is_none()).map(|id| pieces[id].text.as_str());
    let kept: BTreeSet<&str> = kept.collect();
    let text = |(id, piece): (usize, &'a Piece)| match listed(id) {
        Some(token) if !kept.contains(token.content.as_str()) => token.content.as_str(),
        _ => piece.text.as_str(),
    };
    pieces.iter().enumerate().map(text).collect()
}

/// A regular expression for any of these texts, the longer ones first.
fn any_of(texts: &[&str]) -> String {
    let mut texts = texts.to_vec();
    texts.sort_by_key(|text| Reverse(text.chars().count()));
    let escaped = |text: &str| {
        let escape = |c: char| r"\.+*?()|[]{}^$".contains(c).then_some('\\').into_iter().chain([c]);
        text.chars().flat_map(escape).collect::<String>()
    };
    texts.into_iter().map(escaped).collect::<Vec<_>>().join("|")
}
