//! How much of each of the model's adapters applies to requests.

use super::error::{ApiError, Result};
use serde::Deserialize;
use std::sync::{Arc, Mutex};
use utoipa::ToSchema;

/// How much of an adapter applies.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
pub struct AdapterScale {
    /// The adapter's number, as `/lora-adapters` lists it.
    #[schema(minimum = 0)]
    pub id: i64,
    /// What its change of the weights is multiplied by: 0 for nothing, 1 for what it was trained to.
    pub scale: f32,
}

/// How much of each adapter applies where a request does not say it.
pub struct AdapterScales(Mutex<Arc<[f32]>>);

impl AdapterScales {
    pub fn new(scales: Arc<[f32]>) -> Self {
        Self(Mutex::new(scales))
    }

    pub fn scales(&self) -> Arc<[f32]> {
        self.0.lock().expect("no thread fails while it holds the lock").clone()
    }

    pub fn set(&self, scales: Arc<[f32]>) {
        *self.0.lock().expect("no thread fails while it holds the lock") = scales;
    }

    /// A scale for each adapter; 0 for those that are not listed. `field`: where the list comes from.
    ///
    /// # Errors
    /// If there is no such adapter, or a scale is not a number.
    pub fn of(&self, listed: &[AdapterScale], field: &str) -> Result<Arc<[f32]>> {
        let mut scales = vec![0.0; self.scales().len()];
        for AdapterScale { id, scale } in listed {
            let known = scales.len();
            let own = usize::try_from(*id).ok().and_then(|id| scales.get_mut(id)).ok_or_else(|| {
                let what =
                    format!("names the adapter {id}, but the server was started with {known} (--lora)");
                ApiError::field(field, what)
            })?;
            if !scale.is_finite() {
                return Err(ApiError::field(
                    field,
                    format_args!("scales the adapter {id} by no finite number"),
                ));
            }
            *own = *scale;
        }
        Ok(scales.into())
    }
}
