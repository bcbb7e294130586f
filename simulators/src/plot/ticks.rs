//! Where the ticks of an axis stand, and what is written at them.

use std::time::Duration;

/// More ticks than this crowd an axis.
const TICKS_MAX: u128 = 7;

/// Multiples of `step` from zero up to `top`.
pub(super) fn ticks(top: Duration, step: Duration) -> impl Iterator<Item = Duration> {
    (0..)
        .map(move |number| step * number)
        .take_while(move |tick| *tick <= top)
}

/// A step between ticks that people count in, for an axis up to `top`.
pub(super) fn nice_step(top: Duration) -> Duration {
    const STEPS_MS: [u64; 31] = [
        1,
        2,
        5,
        10,
        20,
        50,
        100,
        200,
        500,
        1_000,
        2_000,
        5_000,
        10_000,
        15_000,
        30_000,
        60_000,
        120_000,
        300_000,
        600_000,
        900_000,
        1_800_000,
        3_600_000,
        7_200_000,
        14_400_000,
        21_600_000,
        43_200_000,
        86_400_000,
        172_800_000,
        432_000_000,
        864_000_000,
        8_640_000_000,
    ];
    let step = STEPS_MS
        .into_iter()
        .find(|step| top.as_millis() <= u128::from(*step) * TICKS_MAX);
    // Beyond two years of waiting the axis is crowded, which is accepted.
    Duration::from_millis(step.unwrap_or(STEPS_MS[STEPS_MS.len() - 1]))
}

/// A step between counted ticks: 1, 2 or 5 times a power of ten.
pub(super) fn nice_count_step(top: usize) -> usize {
    let mut power = 1;
    loop {
        if let Some(factor) = [1, 2, 5]
            .into_iter()
            .find(|factor| top <= factor * power * 10)
        {
            return factor * power;
        }
        power *= 10;
    }
}

/// A tick's time without odd zeros: `500 ms`, `30 s`, `2 min`, `1 h 30 min`.
pub(super) fn tick_label(tick: Duration) -> String {
    let millis = tick.as_millis();
    if millis == 0 {
        return "0".to_owned();
    }
    if millis < 1000 {
        return format!("{millis} ms");
    }
    if millis < 60_000 && !millis.is_multiple_of(1000) {
        return format!("{:.1} s", tick.as_secs_f64());
    }
    let seconds = tick.as_secs();
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let words: Vec<_> = parts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number} {unit}"))
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_a_handful_of_round_ticks() {
        for (top_ms, step_ms) in [
            (1, 1),
            (8, 2),
            (6_700, 1_000),
            (400_000, 60_000),
            (1_000_000, 300_000),
        ] {
            assert_eq!(
                nice_step(Duration::from_millis(top_ms)),
                Duration::from_millis(step_ms)
            );
        }
        assert_eq!(
            [7, 10, 150, 311, 5000].map(nice_count_step),
            [1, 1, 20, 50, 500]
        );
        let labels = [0, 500, 1_500, 30_000, 90_000, 5_400_000]
            .map(|ms| tick_label(Duration::from_millis(ms)));
        assert_eq!(
            labels,
            ["0", "500 ms", "1.5 s", "30 s", "1 min 30 s", "1 h 30 min"]
        );
    }
}
