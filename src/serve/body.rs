//! Reads requests: the body is JSON, and an error names the field that is wrong.

use super::error::{ApiError, Kind, Result};
use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::StatusCode,
    response::IntoResponse,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A request's body, whatever its content type says.
pub struct Body<T>(pub T);

/// A request's body that is read as two groups of fields.
pub struct Both<A, B>(pub A, pub B);

async fn read_json<S: Send + Sync>(request: Request, state: &S) -> Result<Value> {
    let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
        match rejection.into_response().status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(
                Kind::TooLarge,
                "the request's body is larger than this server takes: send less, or start it with a larger \
                 --max-body",
            ),
            _ => ApiError::new(Kind::InvalidRequest, "the request's body broke off: send it again"),
        }
    })?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|e| ApiError::new(Kind::InvalidRequest, format!("the request's body is not JSON: {e}")))?;
    match value.is_object() {
        true => Ok(value),
        false => Err(ApiError::new(Kind::InvalidRequest, "the request's body is not a JSON object")),
    }
}

/// Reads a group of fields.
fn fields<T: DeserializeOwned>(value: &Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let path = e.path().to_string();
        match path.as_str() {
            "." => ApiError::new(Kind::InvalidRequest, format!("the request is wrong: {}", e.inner())),
            path => ApiError::field(path, format_args!("is wrong: {}", e.inner())),
        }
    })
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        Ok(Self(fields(&read_json(request, state).await?)?))
    }
}

impl<S: Send + Sync, A: DeserializeOwned, B: DeserializeOwned> FromRequest<S> for Both<A, B> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let value = read_json(request, state).await?;
        Ok(Self(fields(&value)?, fields(&value)?))
    }
}
