//! transformers' classes of tokenizers, which say how a text is split into words and how ids become text
//! again where a file holds the vocabulary alone: vocab.json with merges.txt, and tokenizer.model. A
//! tokenizer.json says it itself, but for the blank before a text, for which transformers 5 takes some
//! classes' word.

use super::{Settings, Tokenizer};
use serde_json::{Value, json};
use tokenizers::{DecoderWrapper, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper};

/// How Qwen2's tokenizers split a text into words.
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
    r"|\s+(?!\S)|\s+",
);

/// The classes that are known.
pub const KNOWN: [&str; 6] = [
    "GPT2Tokenizer",
    "OpenAIGPTTokenizer",
    "Qwen2Tokenizer",
    "LlamaTokenizer",
    "CodeLlamaTokenizer",
    "GemmaTokenizer",
];

/// The tokenizer.json of BPE with this vocabulary and these merges, as the settings' class defines it; none
/// where the class is not known.
pub fn tokenizer_json(settings: &Settings, vocab: Value, merges: Value) -> Option<Value> {
    let prefix = |default| settings.add_prefix_space.unwrap_or(default);
    let bytes = |use_regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": prefix(false), "trim_offsets": true,
            "use_regex": use_regex,
        })
    };
    let mut model = json!({
        "type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": false, "dropout": null,
        "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
        "byte_fallback": false,
    });
    let blanks_and_bytes = [
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    let (normalizer, pre_tokenizer, decoder) = match settings.class.as_str() {
        "GPT2Tokenizer" => (Value::Null, bytes(true), bytes(true)),
        // BPE on lower-case words whose last piece ends in `</w>`.
        "OpenAIGPTTokenizer" => {
            model["unk_token"] =
                json!(settings.special_tokens.get("unk_token").map_or("<unk>", String::as_str));
            model["end_of_word_suffix"] = json!("</w>");
            let normalizer = json!({
                "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                "strip_accents": null, "lowercase": true,
            });
            let decoder = json!({"type": "BPEDecoder", "suffix": "</w>"});
            (normalizer, json!({"type": "BertPreTokenizer"}), decoder)
        }
        "Qwen2Tokenizer" => {
            let words = json!({
                "type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": false,
            });
            let steps = json!({"type": "Sequence", "pretokenizers": [words, bytes(false)]});
            (json!({"type": "NFC"}), steps, bytes(true))
        }
        // SentencePiece's: blanks are "▁", and rare characters are spelt as bytes.
        "GemmaTokenizer" => {
            model["unk_token"] =
                json!(settings.special_tokens.get("unk_token").map_or("<unk>", String::as_str));
            model["fuse_unk"] = json!(true);
            model["byte_fallback"] = json!(true);
            let normalizer = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
            let words = json!({
                "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                "invert": false,
            });
            (normalizer, words, json!({"type": "Sequence", "decoders": blanks_and_bytes}))
        }
        "LlamaTokenizer" | "CodeLlamaTokenizer" => {
            model["fuse_unk"] = json!(true);
            model["byte_fallback"] = json!(true);
            let scheme = match (prefix(true), settings.legacy.unwrap_or(false)) {
                (false, _) => "never",
                (true, true) => "always",
                (true, false) => "first",
            };
            let mut decoders = blanks_and_bytes.to_vec();
            if prefix(true) {
                decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
            }
            let blanks =
                json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
            (Value::Null, blanks, json!({"type": "Sequence", "decoders": decoders}))
        }
        _ => return None,
    };
    Some(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder, "model": model,
    }))
}

impl Tokenizer {
    /// Puts a blank before every text, or none, where the class of a tokenizer.json decides that.
    pub(super) fn obey_class(&mut self, settings: &Settings) -> tokenizers::Result<()> {
        let spells_bytes = matches!(self.inner.get_model(), ModelWrapper::BPE(bpe) if bpe.byte_fallback);
        match (settings.class.as_str(), settings.add_prefix_space) {
            ("GPT2Tokenizer" | "Qwen2Tokenizer" | "GPTNeoXTokenizer" | "CohereTokenizer", prefix) => {
                let mut splits = json!(self.inner.get_pre_tokenizer());
                let steps = match splits["pretokenizers"].is_array() {
                    true => splits["pretokenizers"].as_array_mut().map(Vec::as_mut_slice),
                    false => Some(std::slice::from_mut(&mut splits)),
                };
                for bytes in steps.into_iter().flatten().filter(|step| step["type"] == "ByteLevel") {
                    bytes["add_prefix_space"] = json!(prefix.unwrap_or(false));
                }
                let splits: Option<PreTokenizerWrapper> = serde_json::from_value(splits)?;
                self.inner.with_pre_tokenizer(splits);
            }
            ("LlamaTokenizer" | "CodeLlamaTokenizer", Some(false)) if spells_bytes => {
                let of_class = tokenizer_json(settings, Value::Null, Value::Null).unwrap_or_default();
                let part = |name: &str| of_class[name].clone();
                let normalizer: Option<NormalizerWrapper> = serde_json::from_value(part("normalizer"))?;
                let splits: Option<PreTokenizerWrapper> = serde_json::from_value(part("pre_tokenizer"))?;
                let decoder: Option<DecoderWrapper> = serde_json::from_value(part("decoder"))?;
                self.inner.with_normalizer(normalizer)?;
                self.inner.with_pre_tokenizer(splits);
                self.inner.with_decoder(decoder);
            }
            _ => (),
        }
        Ok(())
    }
}
