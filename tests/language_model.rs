//! The library as applications use it: texts and conversations, including failures.

use crate::support::On;
use wgpt::{
    LanguageModel, Request,
    chat::Message,
    engine::{EngineOptions, FinishReason},
    model::Model,
    sampling::Sampling,
};

fn greedy(max_tokens: usize) -> Request {
    Request { sampling: Sampling::GREEDY, max_tokens, ..Request::default() }
}

fn built_in(context: u32) -> LanguageModel {
    let (model, tokenizer) = Model::built_in().expect("the built-in model");
    let options = EngineOptions { context: Some(context), ..EngineOptions::default() };
    let device = On::Cpu.open().expect("the CPU");
    LanguageModel::load(model, tokenizer, device, options).expect("it fits")
}

#[test]
fn a_text_ends_before_its_stop_string() {
    let mut model = built_in(128);
    let whole: String = model
        .generate("Once upon a time", &greedy(30))
        .expect("a prompt")
        .map(|p| p.expect("a piece"))
        .collect();
    let at = whole.find("girl").expect("a story of one");
    let request = Request { stop: vec!["girl".to_owned()], ..greedy(30) };
    let mut text = model.generate("Once upon a time", &request).expect("a prompt");
    let pieces: Vec<String> = text.by_ref().map(|piece| piece.expect("a piece")).collect();
    assert_eq!((pieces.concat().as_str(), text.text()), (&whole[..at], &whole[..at]));
    assert_eq!((text.finish_reason(), text.next().is_none()), (Some(FinishReason::Stop), true));
    drop(text);
    // Stopped in the middle: text that was held back is returned once.
    let mut text = model.generate("Once upon a time", &greedy(30)).expect("a prompt");
    let begun: String = text.by_ref().take(5).map(|piece| piece.expect("a piece")).collect();
    assert_eq!((begun + &text.finish()).as_str(), text.text());
    assert_eq!((text.finish(), text.tokens().len()), (String::new(), 5));
    drop(text);
    // Watched while it reads.
    let long = "Once upon a time ".repeat(70);
    let mut model = built_in(512);
    let mut text = model.generate(&long, &greedy(5)).expect("a prompt");
    let read: Vec<_> = std::iter::from_fn(|| text.read().expect("a prompt that is read")).collect();
    assert_eq!(
        read.iter().map(|(done, all)| (*done, *all > 256)).collect::<Vec<_>>(),
        [(128, true), (256, true)]
    );
    assert_eq!(text.by_ref().count(), 5);
    drop(text);
    // Given up while it reads: the next is not touched.
    let other = "The cat sat ".repeat(90);
    let mut text = model.generate(&other, &greedy(5)).expect("a prompt");
    assert!(text.read().expect("a chunk").is_some());
    drop(text);
    let again: Vec<_> = model.generate("Once upon a time", &greedy(30)).expect("a prompt").collect();
    assert_eq!(again.into_iter().map(|piece| piece.expect("a piece")).collect::<String>(), whole);
}

#[test]
fn a_conversation_is_as_before_where_an_answer_fails() {
    let mut model = built_in(200);
    let mut conversation = model.chat(greedy(10)).expect("the plain form");
    assert!(conversation.is_plain());
    for text in ["Hello", "Who is Lily?"] {
        let answer: Vec<_> = conversation.say(text).expect("an answer").collect();
        assert!(answer.iter().all(Result::is_ok) && answer.len() > 3);
    }
    let said = conversation.said.clone();
    assert_eq!(
        said.iter().map(|m| m.role.as_str()).collect::<Vec<_>>(),
        ["user", "assistant", "user", "assistant"]
    );
    // This message does not fit the context, even alone.
    assert!(conversation.say("word ".repeat(400)).is_err_and(|e| e.exit_code() == 2));
    assert_eq!(conversation.said, said);
    let seed = conversation.request.sampling.seed;
    drop(conversation.regenerate().expect("another answer"));
    assert_eq!(conversation.said[..3], said[..3]);
    assert_ne!(conversation.request.sampling.seed, seed);
    conversation.said.insert(0, Message::new("system", "word ".repeat(400)));
    let said = conversation.said.clone();
    assert!(conversation.regenerate().is_err());
    assert_eq!(conversation.said, said);
    conversation.said = vec![Message::new("assistant", "Hi.")];
    assert!(conversation.regenerate().is_err());
    assert_eq!(conversation.said.len(), 1);
    // When the context is full, the oldest turns are dropped; the newest message stays.
    conversation.said.clear();
    let mut forgotten = 0;
    for turn in 0..12 {
        let mut answer = conversation.say(format!("Turn {turn}, and some words more")).expect("an answer");
        forgotten += answer.forgotten;
        answer.by_ref().for_each(|piece| drop(piece.expect("a piece")));
        drop(answer);
        let last = &conversation.said[conversation.said.len() - 2];
        assert!(last.content.starts_with(&format!("Turn {turn},")));
    }
    assert!(forgotten > 0 && forgotten % 2 == 0);
    assert_eq!(conversation.said.len() + forgotten, 24);
}
