//! Streams of server-sent events.

use axum::response::{
    IntoResponse, Response, Sse,
    sse::{Event, KeepAlive},
};
use futures_util::{Stream, StreamExt};
use serde_json::Value;
use std::{convert::Infallible, time::Duration};

/// An event that is JSON.
pub fn data(value: &Value) -> Event {
    Event::default().data(value.to_string())
}

/// An event with a name, as Anthropic's messages and OpenAI's responses have them.
pub fn named(name: &str, value: &Value) -> Event {
    Event::default().event(name).data(value.to_string())
}

/// The event after the last one of OpenAI's streams.
pub fn done() -> Event {
    Event::default().data("[DONE]")
}

/// An answer that is a stream. A comment every 30 seconds keeps it open while a prompt is read.
pub fn answer(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let pings = KeepAlive::new().interval(Duration::from_secs(30));
    Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(pings).into_response()
}
