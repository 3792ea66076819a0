//! Conversations: templates against transformers' rendering, and `wgpt chat` from outside.

use crate::support::path;
use serde_json::Value;
use std::collections::BTreeMap;
use wgpt::chat::{Message, Template};

/// Every template and conversation of tests/fixtures/chat.py: the same text, or a refusal where transformers has one.
#[test]
fn templates_render_as_transformers_renders_them() {
    let text = std::fs::read(path("fixtures/chat.json")).expect("a file");
    let found: Value = serde_json::from_slice(&text).expect("JSON");
    let special = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let special = BTreeMap::from(special.map(|(name, token)| (name.to_owned(), token.to_owned())));
    let mut checked = 0;
    for fixture in found.as_array().expect("a list") {
        let name = fixture["name"].as_str().expect("a name");
        let text = fixture["template"].as_str().expect("a text");
        let template = Template::new(name, text, special.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
        for case in fixture["cases"].as_array().expect("a list") {
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).expect("messages");
            let got = template.render(&messages, case["add_generation_prompt"] == true);
            assert_eq!(got.as_deref().ok(), case["text"].as_str(), "{name}: {messages:?}");
            checked += 1;
        }
    }
    assert_eq!(checked, 75, "all cases are there");
}
