//! Tokenizers from vocab.json and merges.txt, which say nothing of how a text is split into words: the class
//! of the tokenizer does.

use super::{Settings, Tokenizer};
use crate::error::{Error, Result};
use std::path::Path;
use tokenizers::{
    SplitDelimiterBehavior, Tokenizer as HfTokenizer,
    decoders::bpe::BPEDecoder,
    models::bpe::BPE,
    normalizers::{bert::BertNormalizer, unicode::NFC},
    pre_tokenizers::{
        PreTokenizerWrapper,
        bert::BertPreTokenizer,
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

/// How Qwen2's tokenizers split a text into words.
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
    r"|\s+(?!\S)|\s+",
);

/// Reads the two files as the settings' class does.
///
/// # Errors
/// Of the kind Model where the files are damaged, or the class is not one of those below.
pub(super) fn read(vocab: &Path, merges: &Path, settings: &Settings) -> Result<Tokenizer> {
    let build = match settings.class.as_str() {
        "GPT2Tokenizer" => gpt2,
        "OpenAIGPTTokenizer" => gpt1,
        "Qwen2Tokenizer" => qwen2,
        class => {
            let class = if class.is_empty() { "no class of tokenizer" } else { class };
            return Err(Error::model(format!(
                "{} and {} are there, and {class} is named, but only GPT2Tokenizer, OpenAIGPTTokenizer and \
                 Qwen2Tokenizer are read from such files: fetch the model's tokenizer.json",
                vocab.display(),
                merges.display()
            )));
        }
    };
    let (vocab, merges) = (vocab.display().to_string(), merges.display().to_string());
    let built = build(&vocab, &merges, settings).map(Tokenizer::new);
    built.map_err(|e| Error::model(format!("{vocab} and {merges} are not a tokenizer: {e}")).because(e))
}

/// GPT-2's: byte-level BPE.
fn gpt2(vocab: &str, merges: &str, settings: &Settings) -> tokenizers::Result<HfTokenizer> {
    let mut tokenizer = HfTokenizer::new(BPE::from_file(vocab, merges).build()?);
    tokenizer.with_pre_tokenizer(Some(
        ByteLevel::default().add_prefix_space(settings.add_prefix_space.unwrap_or(false)),
    ));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}

/// GPT-1's: BPE on lower-case words whose last piece ends in `</w>`.
fn gpt1(vocab: &str, merges: &str, settings: &Settings) -> tokenizers::Result<HfTokenizer> {
    let unknown = settings.special_tokens.get("unk_token").map_or("<unk>", String::as_str);
    let model = BPE::from_file(vocab, merges)
        .unk_token(unknown.to_owned())
        .end_of_word_suffix("</w>".to_owned())
        .build()?;
    let mut tokenizer = HfTokenizer::new(model);
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, true, None, true)))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_decoder(Some(BPEDecoder::new("</w>".to_owned())));
    Ok(tokenizer)
}

/// Qwen2's: byte-level BPE on normalized texts, split in another way than GPT-2's.
fn qwen2(vocab: &str, merges: &str, settings: &Settings) -> tokenizers::Result<HfTokenizer> {
    let mut tokenizer = HfTokenizer::new(BPE::from_file(vocab, merges).build()?);
    tokenizer.with_normalizer(Some(NFC))?;
    let words = Split::new(SplitPattern::Regex(QWEN2.to_owned()), SplitDelimiterBehavior::Isolated, false)?;
    let bytes =
        ByteLevel::default().add_prefix_space(settings.add_prefix_space.unwrap_or(false)).use_regex(false);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![
        PreTokenizerWrapper::Split(words),
        PreTokenizerWrapper::ByteLevel(bytes),
    ])));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}
