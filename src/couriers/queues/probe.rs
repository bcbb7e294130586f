//! Preflight probes: whether the topics and queues of this process exist, and whether two keys name the same queue under different
//! URLs. A mistyped dead-letter queue would otherwise be noticed with its first message, weeks later.

use aws_sdk_sqs::types::QueueAttributeName;
use tokio::task::JoinSet;

use super::super::config::{Config, Role};
use super::topology::Topology;
use crate::storage::aws::errors;
use crate::storage::preflight::{Engine, Outcome, Probe, Verdict};

type Place = (&'static str, String);

pub fn probes(topology: &Topology, config: &Config) -> [Probe; 2] {
    let places = topology.endpoints();
    // A dispatcher publishes assignments; every process publishes the staff's events.
    let topics = [
        ("couriers.events_topic_arn", &places.events_topic, true),
        (
            "couriers.assignments_topic_arn",
            &places.assignments_topic,
            config.has(Role::Dispatcher),
        ),
    ];
    let queues = [
        (
            "couriers.events_queue_url",
            &places.events_queue,
            config.has(Role::Dispatcher),
        ),
        (
            "couriers.assignments_queue_url",
            &places.assignments_queue,
            config.has(Role::Directory),
        ),
        ("couriers.dead_letter_queue_url", &places.dead_letters, true),
    ];
    let used = |places: &[(&'static str, &String, bool)]| {
        let used = places.iter().filter(|(.., used)| *used);
        used.map(|&(key, place, _)| (key, place.clone()))
            .collect::<Vec<Place>>()
    };
    let (topics, queues) = (used(&topics), used(&queues));
    let names = |places: &[Place]| places.iter().map(|(key, _)| (*key).to_owned()).collect();
    let (of_topics, of_queues) = (topology.clone(), topology.clone());
    [
        Probe::new(Engine::Sns, names(&topics), move || {
            all(of_topics.clone(), topics.clone(), topic)
        }),
        Probe::new(Engine::Sqs, names(&queues), move || {
            let (topology, queues) = (of_queues.clone(), queues.clone());
            async move { distinct(&queues, all(topology, queues.clone(), queue).await) }
        }),
    ]
}

/// All calls at once; the verdicts in their order.
async fn all<F>(
    topology: Topology,
    places: Vec<Place>,
    ask: fn(Topology, String) -> F,
) -> Vec<Verdict>
where
    F: Future<Output = Verdict> + Send + 'static,
{
    let mut asked = JoinSet::new();
    for (number, (_, place)) in places.into_iter().enumerate() {
        let asking = ask(topology.clone(), place.clone());
        asked.spawn(async move {
            if place.is_empty() {
                let detail = "not configured: the server creates it (`aws.provision`)";
                return (number, Verdict::new(Outcome::Unchecked, detail));
            }
            let mut verdict = asking.await;
            if verdict.outcome != Outcome::Passed {
                verdict.detail = format!("{place}: {}", verdict.detail);
            }
            (number, verdict)
        });
    }
    let mut verdicts = asked.join_all().await;
    verdicts.sort_by_key(|(number, _)| *number);
    verdicts.into_iter().map(|(_, verdict)| verdict).collect()
}

async fn topic(topology: Topology, arn: String) -> Verdict {
    let get = topology.sns().get_topic_attributes().topic_arn(&arn);
    match Box::pin(get.send()).await {
        Ok(_) => Verdict::passed(arn),
        Err(error) => errors::verdict(Engine::Sns, &error),
    }
}

/// The verdict has the queue's ARN.
async fn queue(topology: Topology, url: String) -> Verdict {
    let get = topology.sqs().get_queue_attributes().queue_url(&url);
    let get = get.attribute_names(QueueAttributeName::QueueArn);
    match Box::pin(get.send()).await {
        Ok(got) => {
            let arn = got
                .attributes
                .and_then(|mut it| it.remove(&QueueAttributeName::QueueArn));
            Verdict::passed(arn.unwrap_or(url))
        }
        Err(error) => errors::verdict(Engine::Sqs, &error),
    }
}

/// Fails a queue that an earlier key names too.
fn distinct(queues: &[Place], mut verdicts: Vec<Verdict>) -> Vec<Verdict> {
    for later in 1..verdicts.len() {
        let arn = verdicts[later].detail.clone();
        let same = (0..later).find(|&earlier| {
            verdicts[earlier].outcome == Outcome::Passed && verdicts[earlier].detail == arn
        });
        if let Some(earlier) = same {
            let other = queues[earlier].0;
            verdicts[later] = Verdict::failed(format!("it is {arn}, which `{other}` names too"));
        }
    }
    verdicts
}
