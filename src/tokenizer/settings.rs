//! What a folder's files say of its tokenizer beside the vocabulary: tokenizer_config.json,
//! special_tokens_map.json and added_tokens.json, resolved as transformers 5 does
//! (`PreTrainedTokenizerBase._from_pretrained`).

use super::sentence_piece;
use crate::{
    error::{Error, Result},
    files::read_json,
};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};
use tokenizers::AddedToken;

/// A tokenizer's settings.
#[derive(Clone)]
pub struct Settings {
    /// transformers' class of tokenizer, without "Fast"; it defines how vocab.json and merges.txt are read.
    pub(super) class: String,
    /// `bos_token`, `eos_token` and so on, by the names that templates use.
    pub special_tokens: BTreeMap<String, String>,
    /// Whether tokenizer.model is read by what it says, whatever the class is.
    pub(super) by_file: bool,
    /// Tokens that a file lists with their ids. They count before those of tokenizer.json.
    pub(super) listed: BTreeMap<u32, AddedToken>,
    /// Whether these are all that count, also of those in tokenizer.json.
    pub(super) lists_all: bool,
    /// Tokens that a file names by their role.
    pub(super) named: Vec<AddedToken>,
    /// Special tokens without a role, by a file or by tokenizer.model.
    pub(super) extra: Vec<AddedToken>,
    /// The special tokens of the class, or of tokenizer.model, which count only where the vocabulary has
    /// them.
    pub(super) of_class: Vec<AddedToken>,
    pub(super) add_prefix_space: Option<bool>,
    /// Whether SentencePiece puts a blank before every piece of text between special tokens, if a file says.
    pub(super) legacy: Option<bool>,
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
    /// Whether decoded texts lose the blanks before punctuation, as models with WordPiece want it.
    pub(super) cleans_up: bool,
    /// tokenizer_config.json; null where there is none.
    pub config: Value,
}

/// The roles of special tokens, in the order in which those that the vocabulary lacks are added.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The special tokens of transformers' classes of tokenizers, by role, where no file names others.
const CLASS_TOKENS: [(&str, &[(&str, &str)]); 8] = [
    ("GPT2Tokenizer", &[("bos", "<|endoftext|>"), ("eos", "<|endoftext|>"), ("unk", "<|endoftext|>")]),
    ("OpenAIGPTTokenizer", &[("unk", "<unk>")]),
    (
        "GPTNeoXTokenizer",
        &[
            ("bos", "<|endoftext|>"),
            ("eos", "<|endoftext|>"),
            ("unk", "<|endoftext|>"),
            ("pad", "<|padding|>"),
        ],
    ),
    ("LlamaTokenizer", &[("bos", "<s>"), ("eos", "</s>"), ("unk", "<unk>")]),
    ("CodeLlamaTokenizer", &[("bos", "<s>"), ("eos", "</s>"), ("unk", "<unk>")]),
    (
        "GemmaTokenizer",
        &[("bos", "<bos>"), ("eos", "<eos>"), ("unk", "<unk>"), ("pad", "<pad>"), ("mask", "<mask>")],
    ),
    ("Qwen2Tokenizer", &[("eos", "<|endoftext|>"), ("unk", "<|endoftext|>"), ("pad", "<|endoftext|>")]),
    (
        "CohereTokenizer",
        &[
            ("bos", "<BOS_TOKEN>"),
            ("eos", "<|END_OF_TURN_TOKEN|>"),
            ("unk", "<UNK>"),
            ("pad", "<PAD>"),
            ("cls", "<CLS>"),
            ("sep", "<SEP>"),
            ("mask", "<MASK_TOKEN>"),
        ],
    ),
];

/// The class of a family's tokenizers, where no file names one.
const FAMILY_CLASSES: [(&str, &str); 5] = [
    ("openai-gpt", "OpenAIGPTTokenizer"),
    ("gpt2", "GPT2Tokenizer"),
    ("gpt_neo", "GPT2Tokenizer"),
    ("qwen2", "Qwen2Tokenizer"),
    ("qwen3", "Qwen2Tokenizer"),
];

/// Classes that say nothing of their own.
const GENERIC: [&str; 3] = ["", "PreTrainedTokenizer", "TokenizersBackend"];

/// Families of which transformers 5 reads every tokenizer by its file, whatever class is named.
const BY_FILE: [&str; 2] = ["llava", "mistral"];

impl Settings {
    /// Reads the settings in a folder of a model of this family.
    ///
    /// # Errors
    /// Of the kind Model where a file is damaged.
    pub fn read(folder: &Path, family: &str) -> Result<Self> {
        let at = |name: &str| folder.join(name);
        let file = |name: &str| if at(name).is_file() { read_json(&at(name)) } else { Ok(Value::Null) };
        let config = file("tokenizer_config.json")?;
        let mut fields = config.as_object().cloned().unwrap_or_default();
        let of_family = FAMILY_CLASSES.iter().find(|(name, _)| *name == family).map(|(_, class)| *class);
        let model = file("config.json")?;
        let class = config["tokenizer_class"].as_str().or(model["tokenizer_class"].as_str());
        let class = class.or(of_family).unwrap_or_default();
        let class = class.strip_suffix("Fast").unwrap_or(class).to_owned();
        // transformers reads Mistral's tokenizers as the files have them, whatever class they name.
        let class = if family == "mistral" { String::new() } else { class };

        let by_file = GENERIC.contains(&class.as_str()) || BY_FILE.contains(&family);
        let [json, vocab, merges] =
            ["tokenizer.json", "vocab.json", "merges.txt"].map(|name| at(name).is_file());
        // If it is damaged, whoever needs the tokenizer is told so.
        let open = || sentence_piece::Model::open(&at("tokenizer.model")).ok();
        let has_others = json || (vocab && merges);
        let pieces = (!has_others).then(open).flatten();

        // Special tokens without a role: a list, or texts by further roles.
        let mut extra = None;
        match fields.remove("extra_special_tokens").or_else(|| fields.remove("additional_special_tokens")) {
            Some(Value::Object(more)) => fields.extend(more),
            Some(Value::Array(list)) => extra = Some(list),
            _ => (),
        }
        let (list, legacy) = ("added_tokens_decoder", at("added_tokens.json"));
        let mut by_id = BTreeMap::new();
        let all = fields.remove(list).filter(|tokens| !tokens.is_null());
        let lists_all = all.is_some();
        if let Some(tokens) = all {
            let path = at("tokenizer_config.json");
            for (id, token) in object(&path, list, &tokens)? {
                let wrong = |what| wrong(&path, &format!("{list}'s entry {id}"), what);
                let id: u32 = id.parse().map_err(|_| wrong("is not named by a token id"))?;
                by_id.insert(id, added(token, false).ok_or_else(|| wrong("has no text as its content"))?);
            }
        } else {
            // Older folders have their special tokens apart, and their added tokens without flags.
            fields.extend(file("special_tokens_map.json")?.as_object().cloned().unwrap_or_default());
            if legacy.is_file() {
                let special =
                    named(&fields).chain(extra.iter().flatten().filter_map(|token| added(token, true)));
                let special: BTreeSet<_> = special.map(|token| token.content).collect();
                let tokens = read_json(&legacy)?;
                for (text, id) in object(&legacy, "it", &tokens)? {
                    let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                    let id =
                        id.ok_or_else(|| wrong(&legacy, &format!("{text}'s value"), "is not a token id"))?;
                    by_id.insert(id, AddedToken::from(text.clone(), special.contains(text)));
                }
            }
            if let (true, Some(Value::Array(more))) =
                (extra.as_ref().is_none_or(Vec::is_empty), fields.remove("additional_special_tokens"))
            {
                extra = Some(more);
            }
        }
        let by_class = CLASS_TOKENS.iter().filter(|(name, _)| *name == class).flat_map(|(_, tokens)| *tokens);
        let implied: Vec<(&str, &str)> = match &pieces {
            Some(model) if by_file => model.roles().collect(),
            _ => by_class.copied().collect(),
        };
        let mut of_class = Vec::new();
        for (role, text) in implied {
            // A null in a file means that there is no such token.
            let role = format!("{role}_token");
            if !fields.contains_key(&role) {
                of_class.push((role, text.to_owned()));
            }
        }
        // A class adds its tokens to those of tokenizer.model.
        if pieces.is_some() && !by_file {
            fields.extend(of_class.drain(..).map(|(role, text)| (role, text.into())));
        }
        let roles = fields.iter().filter(|(role, _)| role.ends_with("_token"));
        let roles = roles.filter_map(|(role, token)| Some((role.clone(), added(token, true)?.content)));
        let special_tokens = roles.chain(of_class.iter().cloned()).collect();
        // The blank before a text comes after such a token, too.
        if by_file && pieces.as_ref().is_some_and(sentence_piece::Model::adds_a_blank) {
            by_id.values_mut().for_each(|token: &mut AddedToken| token.normalized = false);
        }
        let extra = match (extra, pieces) {
            (Some(list), _) => list.iter().filter_map(|token| added(token, true)).collect(),
            (None, Some(model)) => model.added(by_file),
            (None, None) => Vec::new(),
        };
        let flag = |name: &str| fields.get(name).is_some_and(is_true);
        // A text is a token by the name of such a flag.
        let asked = |name: &str| flag(name) && !fields[name].is_string();
        Ok(Self {
            class,
            by_file,
            special_tokens,
            listed: by_id,
            lists_all,
            named: named(&fields).collect(),
            extra,
            of_class: of_class.into_iter().map(|(_, text)| AddedToken::from(text, true)).collect(),
            add_prefix_space: fields.get("add_prefix_space").filter(|value| !value.is_null()).map(is_true),
            legacy: fields.get("legacy").filter(|value| !value.is_null()).map(is_true),
            add_bos: asked("add_bos_token"),
            add_eos: asked("add_eos_token"),
            cleans_up: flag("clean_up_tokenization_spaces"),
            config,
        })
    }
}

/// Whether Python takes a value for true.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is_true) => *is_true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// The tokens that the fields name by their role.
fn named(fields: &Map<String, Value>) -> impl Iterator<Item = AddedToken> {
    let first = ROLES.iter().filter_map(|role| fields.get(*role));
    let others =
        fields.iter().filter(|(role, _)| role.ends_with("_token") && !ROLES.contains(&role.as_str()));
    first.chain(others.map(|(_, token)| token)).filter_map(|token| added(token, true))
}

/// A token as a text, or as an object with its text in `content` and its flags.
fn added(token: &Value, special: bool) -> Option<AddedToken> {
    let content = token.as_str().or(token["content"].as_str())?;
    let flag = |name: &str, default: bool| token.get(name).map_or(default, is_true);
    let special = flag("special", special);
    Some(AddedToken {
        content: content.to_owned(),
        single_word: flag("single_word", false),
        lstrip: flag("lstrip", false),
        rstrip: flag("rstrip", false),
        normalized: flag("normalized", !special),
        special,
    })
}

fn object<'a>(path: &Path, field: &str, value: &'a Value) -> Result<&'a Map<String, Value>> {
    value.as_object().ok_or_else(|| wrong(path, field, "is not a JSON object"))
}

fn wrong(path: &Path, field: &str, what: &str) -> Error {
    Error::model(format!("{}: {field} {what}; download the file again", path.display()))
}
