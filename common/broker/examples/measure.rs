//! Measures a broker: publish with confirm one by one and pipelined, and consuming with acknowledgement.
//!
//! `cargo run --release -p gristmill-broker --example measure -- in-process`
//! `cargo run --release -p gristmill-broker --example measure -- amqp://user:password@host:port/vhost`
//!
//! Uses the work queue `measure`, which should be empty, and leaves it empty.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_broker::{
    Broker, BrokerError, Consumer, ConsumerEvent, InProcess, InProcessConfig, Publication,
    RabbitMq, RabbitMqConfig, Source, Target,
};

const BODY_BYTES: usize = 1024;
const SINGLE: usize = 500;
const BATCH: usize = 1000;
const BATCHES: usize = 20;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), BrokerError> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "in-process".to_owned());
    let broker: Arc<dyn Broker> = if url == "in-process" {
        InProcess::new(InProcessConfig::default())
    } else {
        RabbitMq::start(RabbitMqConfig::new(url))?
    };
    broker.declare_work_queue("measure").await?;

    let mut times = Vec::with_capacity(SINGLE);
    let cpu = cpu_time();
    for _ in 0..SINGLE {
        let started = Instant::now();
        publish(&*broker, 1).await;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    println!(
        "publish + confirm, one by one: p50 {:?}, p99 {:?}, {:.1} us CPU each",
        times[SINGLE / 2],
        times[SINGLE * 99 / 100],
        per_message(cpu_time().saturating_sub(cpu), SINGLE)
    );

    let cpu = cpu_time();
    let started = Instant::now();
    for _ in 0..BATCHES {
        publish(&*broker, BATCH).await;
    }
    report(
        &format!("publish + confirm, {BATCH} pipelined"),
        BATCH * BATCHES,
        started,
        cpu,
    );

    let cpu = cpu_time();
    let started = Instant::now();
    let mut consumer = broker.consume(Source::Work("measure".into()), 500).await?;
    drain(&mut *consumer, SINGLE + BATCH * BATCHES).await;
    report("consume + ack", SINGLE + BATCH * BATCHES, started, cpu);

    let mut times = Vec::with_capacity(SINGLE);
    for _ in 0..SINGLE {
        let started = Instant::now();
        let (_, ()) = tokio::join!(publish(&*broker, 1), drain(&mut *consumer, 1));
        times.push(started.elapsed());
    }
    times.sort_unstable();
    println!(
        "publish to a waiting consumer, confirmed and delivered: p50 {:?}, p99 {:?}",
        times[SINGLE / 2],
        times[SINGLE * 99 / 100]
    );
    consumer.close().await;
    Ok(())
}

async fn publish(broker: &dyn Broker, count: usize) {
    let batch = (0..count)
        .map(|_| {
            Publication::new(Target::Work("measure".into()), vec![b'x'; BODY_BYTES])
                .with_header("fence", 1)
                .with_header("ti", "01890a5d-ac96-774b-bcce-b302099a8057")
        })
        .collect();
    for outcome in broker.publish(batch).await {
        assert!(outcome.is_confirmed(), "{outcome:?}");
    }
}

async fn drain(consumer: &mut dyn Consumer, count: usize) {
    let mut seen = 0;
    while seen < count {
        let mut event = Some(consumer.next().await);
        let mut tags = Vec::new();
        while let Some(ConsumerEvent::Delivery(delivery)) = event {
            tags.push(delivery.tag);
            event = consumer.try_next();
        }
        seen += tags.len();
        consumer.ack(&tags);
    }
}

fn report(what: &str, messages: usize, started: Instant, cpu: Duration) {
    let elapsed = started.elapsed();
    println!(
        "{what}: {:.0} messages/s, {:.1} us CPU of this process each",
        messages as f64 / elapsed.as_secs_f64(),
        per_message(cpu_time().saturating_sub(cpu), messages)
    );
}

fn per_message(cpu: Duration, messages: usize) -> f64 {
    cpu.as_secs_f64() * 1e6 / messages as f64
}

/// User and system time of this process, in the kernel's ticks of 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 = after_name
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}
