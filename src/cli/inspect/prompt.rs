//! `wgpt inspect --prompt`: predictions after each token and layer, and the attention weights of each head.

use crate::{
    backend::DeviceInfo,
    cli::{
        ModelArgs, interrupt, terminal,
        terminal::{Terminal, Unit},
    },
    engine::{Candidate, EngineOptions, Insight, MAX_INSIGHT_TOKENS},
    error::{Error, Result},
    tokenizer::Tokenizer,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::{fmt::Write, ops::ControlFlow, path::Path};

/// The number of candidates shown for each prediction.
const CANDIDATES: usize = 5;

/// The output formats that were asked for.
pub struct Shown<'a> {
    pub html: Option<&'a Path>,
    pub json: bool,
}

/// Runs a prompt through the model and shows what happens inside.
pub fn run(text: &str, model: &ModelArgs, shown: Shown, terminal: &Terminal) -> Result<()> {
    let (opened, tokenizer) = model.open(terminal)?;
    let tokens = opened.begun(tokenizer.encode(text, true)?);
    let most = MAX_INSIGHT_TOKENS.min(opened.architecture.max_positions);
    if tokens.len() > most as usize {
        return Err(Error::request(format!(
            "--prompt has {} tokens, but of {} at most {most} can be looked into: shorten it",
            tokens.len(),
            opened.name
        )));
    }
    // By default the context is just long enough for the prompt.
    let context = model.ctx.unwrap_or((tokens.len() as u32).max(1));
    let options = EngineOptions { context: Some(context), insight: true, ..EngineOptions::default() };
    let mut engine = model.load(&opened, options, terminal)?;
    interrupt::watch();
    let bar = terminal.progress("looking", Unit::Layers);
    let insight = engine.insight(&tokens, CANDIDATES, &mut |done, all| {
        bar.reach(done as u64, all as u64);
        if interrupt::interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    drop(bar);
    // Interrupted: the exit code says so.
    let Some(insight) = insight else { return Ok(()) };
    let seen = Seen {
        model: &opened.name,
        device: engine.device(),
        tokenizer: &tokenizer,
        tokens: &tokens,
        insight,
    };
    if let Some(path) = shown.html {
        std::fs::write(path, seen.page()).map_err(|e| {
            Error::request(format!("--html: {} cannot be written: {e}", path.display())).because(e)
        })?;
        terminal.say(format_args!("written: {}, to be opened in a browser", path.display()));
    }
    match shown.json {
        true => terminal::write_json(&seen.json()),
        false => terminal::write(seen.text()).map(|_| ()),
    }
}

struct Seen<'a> {
    model: &'a str,
    device: &'a DeviceInfo,
    tokenizer: &'a Tokenizer,
    tokens: &'a [u32],
    insight: Insight,
}

impl Seen<'_> {
    /// A token's text after the tokens before it. Special tokens are spelt out.
    fn spelt(&self, before: &[u32], id: u32) -> String {
        match self.tokenizer.stream(before).push(id) {
            text if text.is_empty() => self.tokenizer.decode(&[id], false),
            text => text,
        }
    }

    /// The text of each token of the prompt.
    fn tokens(&self) -> impl Iterator<Item = String> {
        self.tokens.iter().enumerate().map(|(i, id)| self.spelt(&self.tokens[..i], *id))
    }

    /// The candidates after each token, and those after the last token by each layer.
    fn text(&self) -> String {
        let listed = |before: &[u32], candidates: &[Candidate]| {
            let one =
                |c: &Candidate| format!("{:?} {:.1} %", self.spelt(before, c.id), 100.0 * c.probability);
            candidates.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let spelt: Vec<String> = self.tokens().map(|text| format!("{text:?}")).collect();
        let width = spelt.iter().map(|text| text.chars().count()).max().unwrap_or(0);
        let (mut text, lens) = (String::new(), &self.insight.lens);
        let predictions = lens.last().expect("the embedding's at least");
        for (i, (spelt, candidates)) in spelt.iter().zip(predictions).enumerate() {
            let candidates = listed(&self.tokens[..=i], candidates);
            writeln!(text, "{i:4} {spelt:width$} → {candidates}").expect("a string");
        }
        writeln!(text, "\nafter the last token, were the head to follow at once:").expect("a string");
        for (layer, tokens) in lens.iter().enumerate() {
            let which = if layer == 0 { "embedding".to_owned() } else { format!("layer {}", layer - 1) };
            let candidates = tokens.last().expect("a prompt has a token");
            let candidates = listed(self.tokens, &candidates[..candidates.len().min(3)]);
            writeln!(text, "{which:>9} → {candidates}").expect("a string");
        }
        text
    }

    /// Everything except the attention weights.
    fn head(&self) -> Value {
        let token = |(id, text): (&u32, String)| json!({"id": id, "text": text});
        let of_token = |(i, candidates): (usize, &Vec<Candidate>)| {
            let text = |c: &Candidate| self.spelt(&self.tokens[..=i], c.id);
            let candidate = |c: &Candidate| json!({"id": c.id, "text": text(c), "p": c.probability});
            candidates.iter().map(candidate).collect::<Value>()
        };
        let of_layer =
            |tokens: &Vec<Vec<Candidate>>| tokens.iter().enumerate().map(of_token).collect::<Value>();
        json!({
            "model": self.model,
            "device": self.device.name,
            "tokens": self.tokens.iter().zip(self.tokens()).map(token).collect::<Value>(),
            "layers": self.insight.attention.len(),
            "heads": self.insight.attention.first().map_or(0, Vec::len),
            "lens": self.insight.lens.iter().map(of_layer).collect::<Value>(),
        })
    }

    fn json(&self) -> Value {
        let mut all = self.head();
        all["attention"] = json!(self.insight.attention);
        all
    }

    /// A self-contained HTML page. Each attention weight is one byte; for each head and token, there are
    /// weights for the tokens up to itself.
    fn page(&self) -> String {
        let layer = |heads: &Vec<Vec<Vec<f32>>>| {
            let weights = heads.iter().flatten().flatten();
            BASE64_STANDARD.encode(weights.map(|weight| (255.0 * weight).round() as u8).collect::<Vec<_>>())
        };
        let mut all = self.head();
        all["attention"] = self.insight.attention.iter().map(layer).collect();
        // Text may contain `</script>`, which would end the page's script.
        let data = all.to_string().replace('<', "\\u003c");
        include_str!("page.html").replacen("null/*DATA*/", &data, 1)
    }
}
