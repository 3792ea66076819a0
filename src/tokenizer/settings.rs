//! What a folder's files say of its tokenizer beside the vocabulary: tokenizer_config.json,
//! special_tokens_map.json and added_tokens.json, resolved as transformers 5 does
//! (`PreTrainedTokenizerBase._from_pretrained`).

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
pub struct Settings {
    /// transformers' class of tokenizer, without "Fast"; it defines how vocab.json and merges.txt are read.
    pub(super) class: String,
    /// `bos_token`, `eos_token` and so on, by the names that templates use.
    pub special_tokens: BTreeMap<String, String>,
    /// Tokens beside those of the vocabulary, in the order in which they get their ids.
    pub(super) added: Vec<AddedToken>,
    /// The class's special tokens, which count only where the vocabulary has them.
    pub(super) of_class: Vec<AddedToken>,
    pub(super) add_prefix_space: bool,
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
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
        let named = config["tokenizer_class"].as_str().or(model["tokenizer_class"].as_str());
        let class = named.or(of_family).unwrap_or_default();
        let class = class.strip_suffix("Fast").unwrap_or(class).to_owned();

        let (list, legacy) = ("added_tokens_decoder", at("added_tokens.json"));
        let mut by_id = BTreeMap::new();
        if let Some(tokens) = fields.remove(list).filter(|tokens| !tokens.is_null()) {
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
                let special: BTreeSet<_> = named_and_extra(&fields).into_iter().map(|t| t.content).collect();
                let tokens = read_json(&legacy)?;
                for (text, id) in object(&legacy, "it", &tokens)? {
                    let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                    let id =
                        id.ok_or_else(|| wrong(&legacy, &format!("{text}'s value"), "is not a token id"))?;
                    by_id.insert(id, AddedToken::from(text.clone(), special.contains(text)));
                }
            }
        }
        let named = fields.iter().filter(|(role, _)| role.ends_with("_token"));
        let named = named.filter_map(|(role, token)| Some((role.clone(), added(token, true)?.content)));
        let mut special_tokens: BTreeMap<_, _> = named.collect();
        let mut of_class = Vec::new();
        for (role, text) in CLASS_TOKENS.iter().filter(|(name, _)| *name == class).flat_map(|(_, t)| *t) {
            // A null in a file means that there is no such token.
            let role = format!("{role}_token");
            if !fields.contains_key(&role) {
                special_tokens.insert(role, (*text).to_owned());
                of_class.push(AddedToken::from(*text, true));
            }
        }
        let mut all: Vec<AddedToken> = by_id.into_values().collect();
        for token in named_and_extra(&fields) {
            match all.iter_mut().find(|known| known.content == token.content) {
                Some(known) => known.special = true,
                None => all.push(token),
            }
        }
        let flag = |name: &str| fields.get(name).and_then(Value::as_bool).unwrap_or(false);
        Ok(Self {
            class,
            special_tokens,
            added: all,
            of_class,
            add_prefix_space: flag("add_prefix_space"),
            add_bos: flag("add_bos_token"),
            add_eos: flag("add_eos_token"),
            config,
        })
    }
}

/// The tokens that the fields name by their role, then those they list without.
fn named_and_extra(fields: &Map<String, Value>) -> Vec<AddedToken> {
    let roles = ROLES.iter().filter_map(|role| fields.get(*role));
    let others =
        fields.iter().filter(|(role, _)| role.ends_with("_token") && !ROLES.contains(&role.as_str()));
    let lists = ["extra_special_tokens", "additional_special_tokens"].map(|name| fields.get(name));
    let extra = lists.into_iter().flatten().flat_map(|list| match list {
        Value::Array(tokens) => tokens.iter().collect::<Vec<_>>(),
        Value::Object(tokens) => tokens.values().collect(),
        _ => Vec::new(),
    });
    let all = roles.chain(others.map(|(_, token)| token)).chain(extra);
    all.filter_map(|token| added(token, true)).collect()
}

/// A token as a text, or as an object with its text in `content` and its flags.
fn added(token: &Value, special: bool) -> Option<AddedToken> {
    let content = token.as_str().or(token["content"].as_str())?;
    let flag = |name: &str, default: bool| token[name].as_bool().unwrap_or(default);
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
