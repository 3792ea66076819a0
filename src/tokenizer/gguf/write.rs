//! Converts a tokenizer to GGUF metadata from which a reader makes the same tokens. Metadata is judged by
//! what is read back from it.

use super::{BYTE, CONTROL, NORMAL, PreTokenizer, UNKNOWN, UNUSED, USER_DEFINED, pre_tokenizers};
use crate::{
    error::{Error, Remedy, Result},
    tokenizer::Tokenizer,
    weights::{Bytes, Gguf, Random, Writer},
};
use rayon::prelude::*;
use serde_json::{Value, json};
use tokenizers::{
    AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper,
};

/// A text on which tokenizers differ: contractions in either case, runs of digits, of spaces and of line
/// ends, punctuation of every kind, scripts without spaces, characters of several code points, composed and
/// not.
const AWKWARD: &str = "  Hello world's I'LL they're we'VE don'T 3 33 333 3333 33333 1234567 12.5e-3 \
     $1,234.50 x=y+z<=>~|^\n\n\n \t\tdef f(x):\r\n    return\tx**2  # ½ ²³ Ⅷ ٣٤٥\n\n  naïve Ünïcödé \
     camelCase HTTPServer ABCdefGHI x1y2 /usr/lib// path/\n ÀÉÎ ǅ ﬁ ßẞ 日本語のテキスト 中文，标点。ABC漢字 \
     한국어 ไทยภาษา हिन्दी العربية עברית Ελληνικά русский 🦙🚀👨‍👩‍👧‍👦 🇺🇸 \
     e\u{301} A\u{30a} \u{212a} \u{212b} \u{37e} \u{1112}\u{1161}\u{11ab} \
     e\u{a0}f\u{2003}g\u{200b}h\u{3000}i — “quotes” ‘it’s’ …!!! ??? ((())) [[]] {{}} <|x|> </s> \
     a_b-c/d\\e 'quoted' ''' \"\"\" C++ C# @you #tag !word  end   ";

/// What may stand beside a token.
const NEIGHBOURS: [&str; 7] = ["", "a", "7", " ", "  ", "\n", "."];

/// How many texts are made at random to compare tokenizers.
const MADE: usize = 4000;

/// A tokenizer, its tokenizer.json, and the text of each of the model's ids.
struct Source<'a> {
    tokenizer: &'a Tokenizer,
    json: Value,
    tokens: Vec<String>,
}

/// Writes a tokenizer's metadata for a vocabulary of `vocab_size` ids. With `force`, it is written even where
/// what is read back from it differs: then the result says in what.
///
/// # Errors
/// Of the kind Model where no pre-tokenizer that GGUF has a name for splits texts as this tokenizer does, or
/// where what is read back differs and `force` is not set.
pub fn write(
    tokenizer: &Tokenizer,
    vocab_size: u32,
    bos: Option<u32>,
    eos: &[u32],
    force: bool,
    file: &mut Writer,
) -> Result<Option<String>> {
    let json = serde_json::to_value(&tokenizer.inner).expect("a tokenizer can be written");
    let token = |id| tokenizer.inner.id_to_token(id).unwrap_or_else(|| format!("[PAD{id}]"));
    let source = Source { tokenizer, json, tokens: (0..vocab_size).map(token).collect() };
    let texts = source.texts();
    let mut closest = None;
    for candidate in source.candidates() {
        let mut metadata = Writer::default();
        source.write(&candidate, bos, eos, &mut metadata)?;
        let gguf = Gguf::read("the new file", Bytes::new(metadata.header()))?;
        match source.unsaid(&Tokenizer::from_gguf(&gguf)?, &texts) {
            None => return source.write(&candidate, bos, eos, file).map(|()| None),
            Some(unsaid) => closest = closest.or(Some((candidate, unsaid))),
        }
    }
    match closest {
        Some((candidate, unsaid)) if force => source.write(&candidate, bos, eos, file).map(|()| Some(unsaid)),
        Some((_, unsaid)) => Err(Error::model(format!("a GGUF file cannot say of a tokenizer: {unsaid}"))
            .with_remedy(Remedy::QuantizeAtLoadOrForce)),
        None => {
            let what = "a GGUF file has no name for how this model's tokenizer splits texts";
            Err(Error::model(what).with_remedy(Remedy::QuantizeAtLoad))
        }
    }
}

/// A way to describe the tokenizer in GGUF metadata.
struct Candidate {
    kind: &'static str,
    pre: &'static str,
    /// Whether a space is added before every text.
    spaced: bool,
}

impl Source<'_> {
    /// The ways to describe the tokenizer, best first.
    fn candidates(&self) -> Vec<Candidate> {
        let model = &self.json["model"];
        if model["type"] != "BPE" {
            return Vec::new();
        }
        if model["byte_fallback"] == true {
            return [true, false].map(|spaced| Candidate { kind: "llama", pre: "default", spaced }).into();
        }
        let Some(words) = self.tokenizer.inner.get_pre_tokenizer().and_then(words_of) else {
            return Vec::new();
        };
        let splits_alike = |pre: &&PreTokenizer| {
            words_of(&serde_json::from_value(pre.json()).expect("a pre-tokenizer")).as_ref() == Some(&words)
        };
        let mut alike: Vec<_> = pre_tokenizers::ALL.iter().filter(splits_alike).collect();
        // Those first whose other settings are the tokenizer's own.
        alike.sort_by_key(|pre| {
            let others =
                [model["ignore_merges"] != pre.ignores_merges, self.json["normalizer"] != pre.normalizer()];
            others.into_iter().filter(|is_other| *is_other).count()
        });
        let candidate = |pre: &PreTokenizer| Candidate { kind: "gpt2", pre: pre.names[0], spaced: false };
        alike.into_iter().map(candidate).collect()
    }

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
        // A special token, that is: else a text that spells it out would become it.
        let unknown = self.unknown().and_then(|id| types.get_mut(id as usize));
        if let Some(kind) = unknown.filter(|kind| **kind == CONTROL) {
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
    /// Whether a text is a token of several characters that is neither added nor the result of a merge.
    fn is_unmade(&self, text: &str) -> bool {
        self.tokens.iter().any(|token| token == text)
            && text.chars().nth(1).is_some()
            && self.added().iter().all(|token| token.content != text)
            && self.merges().iter().all(|pair| pair.concat() != text)
    }

    /// The texts by which tokenizers are compared: every token that is added to the vocabulary, between all
    /// neighbours; every token's text; `AWKWARD`; and random rows of such parts.
    fn texts(&self) -> Vec<String> {
        let added: Vec<_> = self.added().into_iter().map(|token| token.content).collect();
        let ids = 0..self.tokens.len() as u32;
        let tokens: Vec<_> = ids.map(|id| self.tokenizer.decode(&[id], false)).collect();
        let words: Vec<_> = AWKWARD.split_inclusive(' ').collect();
        let mut texts = tokens.clone();
        texts.push(AWKWARD.to_owned());
        for (token, left) in added.iter().flat_map(|token| NEIGHBOURS.map(|left| (token, left))) {
            texts.extend(NEIGHBOURS.map(|right| format!("{left}{token}{right}")));
        }
        let mut random = Random(1);
        let mut below = |most: usize| (random.word() % most.max(1) as u64) as usize;
        for _ in 0..MADE {
            let mut text = String::new();
            for _ in 0..=below(8) {
                let part = match below(4) {
                    0 => added.get(below(added.len())).map(String::as_str),
                    1 => tokens.get(below(tokens.len())).map(String::as_str),
                    2 => words.get(below(words.len())).copied(),
                    _ => NEIGHBOURS.get(below(NEIGHBOURS.len())).copied(),
                };
                text += part.unwrap_or_default();
            }
            texts.push(text);
        }
        texts
    }

    /// The tokens that are added to the vocabulary and within the model's, by their ids.
    fn added(&self) -> Vec<AddedToken> {
        let added = self.tokenizer.inner.get_added_tokens_decoder();
        (0..self.tokens.len() as u32).filter_map(|id| added.get(&id).cloned()).collect()
    }

    /// What the tokenizer does on the texts and the one that was read back does not; None if they are alike.
    fn unsaid(&self, read: &Tokenizer, texts: &[String]) -> Option<String> {
        let differ = |text: &&String| {
            [true, false].into_iter().any(|special| {
                let [own, other] = [self.tokenizer, read].map(|by| by.encode(text, special).ok());
                let ids = own.clone().unwrap_or_default();
                // Ids beyond the vocabulary are none that the model can run.
                let runs = ids.iter().all(|id| (*id as usize) < self.tokens.len());
                let texts = |by: &Tokenizer| [true, false].map(|skip| by.decode(&ids, skip));
                runs && (own != other || texts(self.tokenizer) != texts(read))
            })
        };
        let text = texts.par_iter().find_first(differ)?;
        let (json, added) =
            (serde_json::to_value(&read.inner).expect("a tokenizer can be written"), self.added());
        let (own, other) = (&self.json["normalizer"], &json["normalizer"]);
        let such = |what: &str, is_such: fn(&AddedToken) -> bool| {
            let token = added.iter().find(|token| is_such(token))?;
            Some(format!("{what}, such as {}", token.content))
        };
        let causes = [
            such("added tokens that take the blanks beside them", |token| token.lstrip || token.rstrip),
            such("added tokens that are whole words only", |token| token.single_word),
            such("added tokens that are normalized", |token| token.normalized).filter(|_| !own.is_null()),
            self.json["pre_tokenizer"]
                .to_string()
                .contains(r#""add_prefix_space":true"#)
                .then(|| "a space before every text".to_owned()),
            (own != other).then(|| format!("the normalizer {}", own["type"].as_str().unwrap_or("none"))),
            (self.json["model"]["ignore_merges"] != json["model"]["ignore_merges"])
                .then(|| "whether a word that is a token needs merges (ignore_merges)".to_owned()),
        ];
        let causes: Vec<_> = causes.into_iter().flatten().collect();
        let is_made_special = |id: &u32| read.is_special(*id) && !self.tokenizer.is_special(*id);
        Some(if !causes.is_empty() {
            causes.join("; ")
        } else if let Some(id) = (0..self.tokens.len() as u32).find(is_made_special) {
            format!("that the token {} is not special", self.tokens[id as usize])
        } else if self.is_unmade(text) {
            format!("the token {text}, which no merge makes")
        } else {
            format!("which tokens the text {} becomes", json!(text))
        })
    }
}

/// The words into which a pre-tokenizer splits `AWKWARD`.
fn words_of(pre_tokenizer: &PreTokenizerWrapper) -> Option<Vec<String>> {
    let mut words = PreTokenizedString::from(AWKWARD);
    pre_tokenizer.pre_tokenize(&mut words).ok()?;
    let splits = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
    Some(splits.into_iter().map(|(text, ..)| text.to_owned()).collect())
}
