//! Who may ask, and the headers of every answer: keys, origins, request ids, the bodies of errors.

use super::{
    app::App,
    error::{ApiError, Dialect, Kind},
};
use axum::{
    Json,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, AUTHORIZATION, CONTENT_LENGTH,
            ORIGIN, VARY,
        },
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The identifier of a request: the client's own, or a new one.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Lets a request through if it has a key, and gives its answer the headers and the body that its dialect
/// expects.
pub async fn dress(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let id = id.filter(|id| !id.is_empty() && id.len() <= 256);
    let id = id.map_or_else(|| super::new_id("req_"), str::to_owned);
    request.extensions_mut().insert(RequestId(id.clone()));
    let dialect = Dialect::of(request.uri().path());
    let origin = request.headers().get(ORIGIN).filter(|origin| is_allowed(&app, origin)).cloned();
    let is_preflight = request.method() == Method::OPTIONS && request.headers().contains_key(ORIGIN);
    let mut response = if is_preflight {
        StatusCode::OK.into_response()
    } else if is_open(request.uri().path()) || has_key(&app.options.api_keys, request.headers()) {
        next.run(request).await
    } else {
        let what = "this server wants a key: give it as Authorization: Bearer KEY, or as X-Api-Key: KEY";
        ApiError::new(Kind::Authentication, what).into_response()
    };
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let body = Json(error.body(dialect, &id)).into_response();
        response.headers_mut().remove(CONTENT_LENGTH);
        response.headers_mut().extend(body.headers().clone());
        *response.body_mut() = body.into_body();
    }
    let headers = response.headers_mut();
    let id = HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("-"));
    if dialect == Dialect::Anthropic {
        headers.insert("request-id", id.clone());
    }
    headers.insert(REQUEST_ID, id);
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS"));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-request-id, request-id"));
        headers.insert(VARY, HeaderValue::from_static("origin"));
    }
    response
}

/// The headers that pages of other origins may send: what OpenAI's and Anthropic's clients send.
const HEADERS: &str = "authorization, content-type, x-api-key, x-request-id, anthropic-version, \
                       anthropic-beta, anthropic-dangerous-direct-browser-access, openai-organization, \
                       openai-project, x-stainless-arch, x-stainless-lang, x-stainless-os, \
                       x-stainless-package-version, x-stainless-retry-count, x-stainless-runtime, \
                       x-stainless-runtime-version, x-stainless-timeout";

/// Whether an endpoint needs no key.
fn is_open(path: &str) -> bool {
    matches!(path, "/" | "/index.html" | "/favicon.ico" | "/health" | "/v1/health")
}

/// Whether a request has one of the keys. Takes as long whichever it is, and however much of it is right.
fn has_key(keys: &[String], headers: &HeaderMap) -> bool {
    if keys.is_empty() {
        return true;
    }
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    let given = [bearer, text(HeaderName::from_static("x-api-key"))];
    let is_right = |given: &str| {
        keys.iter().fold(0u8, |right, key| right | key.as_bytes().ct_eq(given.as_bytes()).unwrap_u8())
    };
    given.into_iter().flatten().fold(0, |right, given| right | is_right(given)) == 1
}

/// Whether pages of this origin may ask: it is listed, or `*` is, or `localhost` is and it is a page of this
/// machine.
fn is_allowed(app: &App, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    let (host, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or_default(),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = |port: &str| port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    let is_local = matches!(host, "localhost" | "127.0.0.1" | "::1") && (port.is_empty() || is_port(port));
    app.options.cors_origins.iter().any(|allowed| match allowed.as_str() {
        "*" => true,
        "localhost" => is_local,
        allowed => allowed.trim_end_matches('/') == origin,
    })
}
