//! Who comes when: the plan of arrivals, drawn from a seeded generator before the run starts.

use std::{net::Ipv4Addr, time::Duration};

use clap::ValueEnum;
use fastrand::Rng;

use crate::{options::duration, sources::Sources};

/// How the groups follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// All groups at the start.
    AtOnce,
    /// One group each --every.
    Steady,
    /// Gaps uniform between zero and twice --every.
    Uniform,
    /// Exponential gaps with mean --every (a Poisson process).
    Poisson,
}

/// The crowd to expect. Bounds and defaults are those of the command line.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Crowd")]
pub(crate) struct Crowd {
    /// Number of groups, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) groups: u32,
    /// Smallest group, in customers, 1 to 10000; sizes are uniform
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) group_min: u32,
    /// Largest group, in customers, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) group_max: u32,
    /// How the groups follow one another; the first comes at the start
    #[arg(long, value_name = "PATTERN", value_enum, default_value_t = Pattern::Poisson)]
    pub(crate) arrival: Pattern,
    /// Mean time between two groups, simulated, 0s to 24h
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub(crate) every: Duration,
    /// Time over which one group trickles in, simulated, 0s to 24h; 0s is at once
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    pub(crate) spread: Duration,
    /// Addresses of this machine that customers come from, one after the other: an IPv4 address or a network such as
    /// 127.0.1.0/24 [default: whichever leads to the shop]
    #[arg(long, value_name = "NETWORK")]
    pub(crate) from: Option<Sources>,
}

impl Crowd {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.group_min > self.group_max {
            return Err(format!(
                "--group-min {} is above --group-max {}",
                self.group_min, self.group_max
            ));
        }
        Ok(())
    }

    /// One entry per customer, in order of arrival. The same generator state gives the same plan.
    pub(crate) fn plan(&self, rng: &mut Rng) -> Vec<Arrival> {
        let mut plan = Vec::new();
        let mut group_due = Duration::ZERO;
        for group in 1..=self.groups {
            if group > 1 {
                group_due += self.gap(rng);
            }
            let size = rng.u32(self.group_min..=self.group_max);
            plan.extend((0..size).map(|_| Arrival {
                group,
                due: group_due + self.spread.mul_f64(rng.f64()),
                from: None,
            }));
        }
        // Stable: customers due at the same moment keep the order in which they were drawn.
        plan.sort_by_key(|arrival| arrival.due);
        for (number, arrival) in plan.iter_mut().enumerate() {
            arrival.from = self.from.map(|sources| sources.of(number));
        }
        plan
    }

    fn gap(&self, rng: &mut Rng) -> Duration {
        match self.arrival {
            Pattern::AtOnce => Duration::ZERO,
            Pattern::Steady => self.every,
            Pattern::Uniform => self.every.mul_f64(2.0 * rng.f64()),
            // 1 - f64() is never zero, so the logarithm is finite.
            Pattern::Poisson => self.every.mul_f64(-(1.0 - rng.f64()).ln()),
        }
    }
}

/// One customer to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The customer's group, from 1.
    pub(crate) group: u32,
    /// Simulated time since the start of the run.
    pub(crate) due: Duration,
    /// The address of ours that the customer comes from, where it matters.
    pub(crate) from: Option<Ipv4Addr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(groups: u32, arrival: Pattern) -> Crowd {
        Crowd {
            groups,
            group_min: 100,
            group_max: 200,
            arrival,
            every: Duration::from_mins(1),
            spread: Duration::ZERO,
            from: None,
        }
    }

    /// When each group's first member comes.
    fn group_times(plan: &[Arrival]) -> Vec<Duration> {
        let mut firsts: Vec<_> = plan.to_vec();
        firsts.dedup_by_key(|arrival| arrival.group);
        firsts.iter().map(|arrival| arrival.due).collect()
    }

    #[test]
    fn group_sizes_are_spread_over_the_whole_range() {
        let plan = crowd(400, Pattern::Steady).plan(&mut Rng::with_seed(1));
        let sizes: Vec<_> = plan
            .chunk_by(|a, b| a.group == b.group)
            .map(<[Arrival]>::len)
            .collect();
        assert_eq!(sizes.len(), 400);
        assert!(sizes.iter().all(|size| (100..=200).contains(size)));
        assert!(sizes.iter().any(|size| *size <= 105));
        assert!(sizes.iter().any(|size| *size >= 195));
    }

    #[test]
    fn the_same_seed_gives_the_same_plan_and_another_seed_another() {
        let crowd = crowd(5, Pattern::Poisson);
        let plan = |seed| crowd.plan(&mut Rng::with_seed(seed));
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn groups_come_at_once_or_after_the_interval() {
        let times = |pattern| group_times(&crowd(3, pattern).plan(&mut Rng::with_seed(1)));
        assert_eq!(times(Pattern::AtOnce), [Duration::ZERO; 3]);
        assert_eq!(
            times(Pattern::Steady),
            [0, 60, 120].map(Duration::from_secs)
        );
    }

    #[test]
    fn random_gaps_have_the_interval_as_their_mean() {
        for (pattern, longest_mins) in [(Pattern::Uniform, 2), (Pattern::Poisson, 20)] {
            let mut crowd = crowd(1000, pattern);
            (crowd.group_min, crowd.group_max) = (1, 1);
            let times = group_times(&crowd.plan(&mut Rng::with_seed(3)));
            let gaps: Vec<_> = times
                .windows(2)
                .map(|pair| pair[1].saturating_sub(pair[0]))
                .collect();
            let mean = times[999].as_secs_f64() / 999.0;
            assert!((50.0..70.0).contains(&mean), "{pattern:?}: {mean}");
            assert!(gaps.iter().max().unwrap() <= &Duration::from_mins(longest_mins));
        }
    }

    #[test]
    fn a_spread_group_trickles_in_sorted() {
        let mut crowd = crowd(1, Pattern::Steady);
        crowd.spread = Duration::from_secs(10);
        let plan = crowd.plan(&mut Rng::with_seed(1));
        assert!(plan.is_sorted_by_key(|arrival| arrival.due));
        assert!(plan.last().unwrap().due <= Duration::from_secs(10));
        assert!(plan.last().unwrap().due > Duration::from_secs(8));
    }

    #[test]
    fn customers_take_the_addresses_in_the_order_in_which_they_come() {
        let mut crowd = crowd(2, Pattern::AtOnce);
        crowd.spread = Duration::from_secs(10);
        crowd.from = Some("127.0.1.0/24".parse().unwrap());
        let plan = crowd.plan(&mut Rng::with_seed(1));
        let hosts: Vec<_> = plan.iter().take(3).map(|arrival| arrival.from).collect();
        let expected = [1, 2, 3].map(|host| Some(Ipv4Addr::new(127, 0, 1, host)));
        assert_eq!(hosts, expected);
    }
}
