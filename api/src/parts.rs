//! What the API is made of.

use crate::shared::Shared;
use gristmill_broker::Broker;
use gristmill_common::seal::SecretKey;
use gristmill_objects::ObjectStore;
use gristmill_presence::Presence;
use gristmill_store::Store;
use std::{fmt, sync::Arc};

/// Answers what else `/health` should tell: each part's name, and what is wrong with it.
pub type Probe = Arc<dyn Fn() -> Vec<(String, Result<(), String>)> + Send + Sync>;

/// The servers that the API talks to, and its settings.
#[derive(Clone)]
pub struct ApiParts {
    pub store: Arc<dyn Store>,
    pub broker: Arc<dyn Broker>,
    pub presence: Arc<dyn Presence>,
    pub objects: ObjectStore,
    pub secret: SecretKey,
    /// The product's version, as `/api/v2/version` tells it.
    pub version: String,
    /// Renders the process's metrics in Prometheus' text format; without it `/metrics` is 404.
    pub metrics: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    /// Further parts for `/health`: a process that plays more roles than this one has more to tell.
    pub probe: Option<Probe>,
}

impl ApiParts {
    /// Parts with this crate's version, no metrics and no probe.
    pub fn new(
        store: Arc<dyn Store>,
        broker: Arc<dyn Broker>,
        presence: Arc<dyn Presence>,
        objects: ObjectStore,
        secret: SecretKey,
    ) -> Self {
        Self {
            store,
            broker,
            presence,
            objects,
            secret,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            metrics: None,
            probe: None,
        }
    }
}

impl fmt::Debug for ApiParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiParts")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// The state of every route.
pub(crate) type App = Arc<Shared>;
