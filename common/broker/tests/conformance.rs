//! The conformance suite on both brokers.

mod support;

use std::sync::Arc;

use gristmill_broker::{Broker, InProcess, InProcessConfig, conformance};

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod in_process {
            $(
                #[tokio::test]
                async fn $name() {
                    let broker: Arc<dyn super::Broker> =
                        super::InProcess::new(super::InProcessConfig::default());
                    super::conformance::$name(broker).await;
                }
            )*
            use super::Arc;
        }

        mod rabbitmq {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let vhost = super::support::Vhost::new().await;
                    super::conformance::$name(vhost.broker()).await;
                }
            )*
        }
    };
}

gristmill_broker::for_each_conformance_test!(on_both);
