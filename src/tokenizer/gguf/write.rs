//! Converts a tokenizer to GGUF metadata, under the pre-tokenizer name with which a reader splits texts as
//! the original does.

use super::{BYTE, CONTROL, NORMAL, PRE_TOKENIZERS, UNKNOWN, UNUSED, USER_DEFINED};
use crate::{
    error::{Error, Remedy, Result},
    tokenizer::Tokenizer,
    weights::{Bytes, Gguf, Writer},
};
use serde_json::Value;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

/// A text on which tokenizers differ: contractions in either case, runs of digits, of spaces and of line
/// ends, punctuation of every kind, scripts without spaces, characters of several code points.
const AWKWARD: &str = "  Hello world's I'LL they're we'VE don'T 3 33 333 3333 33333 12.5e-3 $1,234.50 \
     x=y+z<=>~|^\n\n\n \t\tdef f(x):\r\n    return\tx**2  # ½ ²³ Ⅷ ٣٤٥\n\n  naïve Ünïcödé \
     ÀÉÎ ﬁ ßẞ 日本語のテキスト 中文，标点。 한국어 ไทย हिन्दी \
     العربية עברית Ελληνικά русский 🦙🚀👨‍👩‍👧‍👦 🇺🇸 \
     e\u{a0}f\u{2003}g\u{200b}h — “quotes” ‘it’s’ …!!! ??? ((())) [[]] {{}} <|x|> </s> \
     a_b-c/d\\e 'quoted' ''' \"\"\" C++ C# @you #tag  end   ";

/// A tokenizer, its tokenizer.json, and the text of each of the model's ids.
struct Source<'a> {
    tokenizer: &'a Tokenizer,
    json: Value,
    tokens: Vec<String>,
}

/// Writes a tokenizer's metadata for a vocabulary of `vocab_size` ids.
///
/// # Errors
/// Where no pre-tokenizer that GGUF has a name for splits texts as this tokenizer does.
pub fn write(
    tokenizer: &Tokenizer,
    vocab_size: u32,
    bos: Option<u32>,
    eos: &[u32],
    file: &mut Writer,
) -> Result<()> {
    let json = tokenizer.inner.to_string(false).expect("a tokenizer can be written");
    let json: Value = serde_json::from_str(&json).expect("as JSON");
    let token = |id| tokenizer.inner.id_to_token(id).unwrap_or_else(|| format!("[PAD{id}]"));
    let source = Source { tokenizer, json, tokens: (0..vocab_size).map(token).collect() };
    let is_bpe = source.json["model"]["type"] == "BPE";
    let candidates: Vec<Candidate> = match source.json["model"]["byte_fallback"].as_bool() {
        _ if !is_bpe => Vec::new(),
        Some(true) => [true, false].map(|spaced| Candidate { kind: "llama", pre: "default", spaced }).into(),
        _ => PRE_TOKENIZERS
            .into_iter()
            .flat_map(|(pre, _)| [false, true].map(|spaced| Candidate { kind: "gpt2", pre, spaced }))
            .collect(),
    };
    for candidate in candidates {
        let mut metadata = Writer::default();
        source.write(&candidate, bos, eos, &mut metadata)?;
        let read = Gguf::read("the new file", Bytes::new(metadata.header()))
            .and_then(|gguf| Tokenizer::from_gguf(&gguf));
        if read.is_ok_and(|read| is_like(tokenizer, &read, candidate.kind == "gpt2")) {
            return source.write(&candidate, bos, eos, file);
        }
    }
    let what = "a GGUF file has no name for what this model's tokenizer does";
    Err(Error::model(what).with_remedy(Remedy::QuantizeAtLoad))
}

/// A way to describe the tokenizer in GGUF metadata.
struct Candidate {
    kind: &'static str,
    pre: &'static str,
    /// Whether a space is added before every text.
    spaced: bool,
}

impl Source<'_> {
    fn write(&self, as_this: &Candidate, bos: Option<u32>, eos: &[u32], file: &mut Writer) -> Result<()> {
        let key = |field: &str| format!("tokenizer.ggml.{field}");
        file.text(&key("model"), as_this.kind);
        file.text(&key("pre"), as_this.pre);
        file.texts(&key("tokens"), &self.tokens);
        file.counts(&key("token_type"), &self.types());
        let merges = self.merges();
        match as_this.kind {
            "llama" => file.numbers(&key("scores"), &self.scores(&merges)),
            _ => file.texts(&key("merges"), &merges.iter().map(|pair| pair.join(" ")).collect::<Vec<_>>()),
        }
        file.bool(&key("add_space_prefix"), as_this.spaced);
        // The tokens that the tokenizer itself adds are the start and end tokens, whatever config.json says.
        let (plain, whole) = (self.tokenizer.encode("a", false)?, self.tokenizer.encode("a", true)?);
        let around = whole.len().saturating_sub(plain.len());
        let starts = around > 1 || around == 1 && whole.ends_with(&plain);
        let ends = around > 1 || around == 1 && !starts;
        let bos = if starts { whole.first().copied() } else { bos };
        let mut ids: Vec<u32> = whole.last().copied().filter(|_| ends).into_iter().collect();
        ids.extend(eos.iter().filter(|id| !ids.contains(id)).copied().collect::<Vec<_>>());
        file.bool(&key("add_bos_token"), starts);
        file.bool(&key("add_eos_token"), ends);
        for (role, id) in ["eos", "eot", "eom"].into_iter().zip(&ids).chain(bos.iter().map(|id| ("bos", id)))
        {
            file.count(&key(&format!("{role}_token_id")), *id);
        }
        if let Some(id) = self.unknown() {
            file.count(&key("unknown_token_id"), id);
        }
        Ok(())
    }

    fn unknown(&self) -> Option<u32> {
        self.tokenizer.inner.token_to_id(self.json["model"]["unk_token"].as_str()?)
    }

    /// The type of each token (`tokenizer.ggml.token_type`).
    fn types(&self) -> Vec<i32> {
        let mut types: Vec<i32> = (0..self.tokens.len() as u32)
            .map(|id| match self.tokenizer.inner.id_to_token(id) {
                None => UNUSED,
                Some(_)
                    if self.json["model"]["byte_fallback"] == true && self.tokenizer.byte(id).is_some() =>
                {
                    BYTE
                }
                Some(_) => NORMAL,
            })
            .collect();
        for (id, token) in self.tokenizer.inner.get_added_tokens_decoder() {
            if let Some(kind) = types.get_mut(id as usize) {
                *kind = if token.special { CONTROL } else { USER_DEFINED };
            }
        }
        if let Some(kind) = self.unknown().and_then(|id| types.get_mut(id as usize)) {
            *kind = UNKNOWN;
        }
        types
    }

    /// The pairs that merge, in order of priority.
    fn merges(&self) -> Vec<[String; 2]> {
        let pair = |merge: &Value| match merge {
            Value::Array(pair) => {
                Some([pair.first()?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned()])
            }
            merge => merge.as_str()?.split_once(' ').map(|(a, b)| [a.to_owned(), b.to_owned()]),
        };
        self.json["model"]["merges"]
            .as_array()
            .map_or_else(Vec::new, |all| all.iter().filter_map(pair).collect())
    }

    /// SentencePiece's scores: the earlier a token is merged, the higher its score.
    fn scores(&self, merges: &[[String; 2]]) -> Vec<f32> {
        let mut scores = vec![0.0; self.tokens.len()];
        for (rank, pair) in merges.iter().enumerate().rev() {
            let id = self.tokenizer.inner.token_to_id(&pair.concat());
            if let Some(score) = id.and_then(|id| scores.get_mut(id as usize)) {
                *score = -(rank as f32);
            }
        }
        scores
    }
}

/// Whether two tokenizers give `AWKWARD` the same ids, and, if `by_words`, split it into the same words.
fn is_like(a: &Tokenizer, b: &Tokenizer, by_words: bool) -> bool {
    let words = |tokenizer: &Tokenizer| {
        let mut words = PreTokenizedString::from(AWKWARD);
        tokenizer.inner.get_pre_tokenizer()?.pre_tokenize(&mut words).ok()?;
        let splits = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Some(splits.into_iter().map(|(text, ..)| text.to_owned()).collect::<Vec<_>>())
    };
    let ids = |tokenizer: &Tokenizer, special| tokenizer.encode(AWKWARD, special).ok();
    (!by_words || words(a) == words(b)) && [true, false].iter().all(|s| ids(a, *s) == ids(b, *s))
}
