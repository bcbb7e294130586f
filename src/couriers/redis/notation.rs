//! Encodings: keys, numbers, and the scripts' answers.

use jiff::Timestamp;
use redis::RedisResult;

use super::super::model::{
    AddCourier, AddOrder, Courier, CourierId, Event, OrderId, Outcome, Whereabouts, Zone,
};
use super::{courier_id, invalid_answer};

/// The keys of a zone, in the order in which `zone.lua` has them.
const ZONE_KEYS: [&str; 11] = [
    "couriers", "counts", "turns", "orders", "parked", "given", "leaving", "left", "log",
    "outgoing", "clock",
];

/// The hash tag in braces selects the node of a cluster.
pub(super) fn zone_key(zone: Zone, name: &str) -> String {
    format!("{{odyssey:couriers:{}}}:{name}", zone.as_str())
}

pub(super) fn zone_keys(zone: Zone) -> Vec<String> {
    ZONE_KEYS.iter().map(|name| zone_key(zone, name)).collect()
}

/// The key of an order's first event.
pub(super) fn first_key(order: OrderId) -> String {
    format!("odyssey:couriers:order:{order}")
}

/// The key of a courier's zone.
pub(super) fn home_key(courier: CourierId) -> String {
    format!("odyssey:couriers:home:{courier}")
}

/// The key of an order's replicated courier.
pub(super) fn replicated_key(order: OrderId) -> String {
    format!("odyssey:couriers:learned:{order}")
}

/// The key of a courier's replicated orders.
pub(super) fn replicated_of_key(courier: CourierId) -> String {
    format!("odyssey:couriers:learned-of:{courier}")
}

/// A log number: a zone's tick, and the zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    tick: u64,
    zone: u64,
}

const ZONES: u64 = Zone::ALL.len() as u64;

fn place(zone: Zone) -> u64 {
    match zone {
        Zone::N => 0,
        Zone::S => 1,
        Zone::E => 2,
        Zone::W => 3,
    }
}

impl Number {
    pub(super) fn of(number: u64) -> (Zone, Self) {
        let (tick, remainder) = (number / ZONES, number % ZONES);
        let zone = Zone::ALL.into_iter().find(|&zone| place(zone) == remainder);
        let of = Self {
            tick,
            zone: remainder,
        };
        (zone.unwrap_or(Zone::N), of)
    }

    /// The smallest one of `zone` that is larger than `number`.
    pub(super) fn first_after(number: u64, zone: Zone) -> Self {
        let zone = place(zone);
        let tick = match number.checked_sub(zone) {
            Some(number) => number / ZONES + 1,
            None => 0,
        };
        Self { tick, zone }
    }

    pub(super) fn of_stream_id(id: &str, zone: Zone) -> RedisResult<Self> {
        Self::of_score(id.strip_suffix("-0").unwrap_or_default(), zone)
    }

    pub(super) fn of_score(tick: &str, zone: Zone) -> RedisResult<Self> {
        Ok(Self {
            tick: number(tick)?,
            zone: place(zone),
        })
    }

    /// Exact, as all numbers are until the year 2255: below 2^53.
    pub(super) fn score(self) -> String {
        self.tick.to_string()
    }

    pub(super) fn stream_id(self) -> String {
        format!("{}-0", self.tick)
    }

    pub(super) fn tick(self) -> u64 {
        self.tick
    }

    pub(super) fn as_u64(self) -> u64 {
        self.tick * ZONES + self.zone
    }
}

/// When an order was placed; the lexical order is the order of the times.
pub(super) fn placed(order: &AddOrder) -> String {
    // Offset to 0, so that all have the same number of digits.
    let since_ever = i128::from(order.added_at.as_microsecond()) - i128::from(i64::MIN);
    format!("{since_ever:020}")
}

pub(super) fn micros(at: Timestamp) -> String {
    at.as_microsecond().to_string()
}

pub(super) fn time_of(text: &str) -> RedisResult<Timestamp> {
    let micros = text.parse().ok();
    let at = micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
    at.ok_or_else(|| invalid_answer("not a time"))
}

pub(super) fn written(event: &Event) -> RedisResult<String> {
    serde_json::to_string(event).map_err(|_| invalid_answer("an event cannot be written"))
}

pub(super) fn event_of(text: &str) -> RedisResult<Event> {
    serde_json::from_str(text).map_err(|_| invalid_answer("not an event"))
}

/// Parses `sequence:unparked:available:name` of a courier.
pub(super) fn said_of(
    id: CourierId,
    zone: Zone,
    said: &str,
    count: &str,
) -> RedisResult<(u64, Courier)> {
    let parts: Vec<&str> = said.splitn(4, ':').collect();
    let [sequence, _, available, name] = parts[..] else {
        return Err(invalid_answer("not a courier"));
    };
    let said = AddCourier {
        id,
        name: name.into(),
        zone,
        is_available: available == "1",
    };
    let count = number(count)?;
    Ok((number(sequence)?, Courier { said, count }))
}

fn number(text: &str) -> RedisResult<u64> {
    text.parse().map_err(|_| invalid_answer("not a number"))
}

/// An order's courier; empty while it is parked.
pub(super) fn place_of(courier: &str) -> RedisResult<Whereabouts> {
    if courier.is_empty() {
        return Ok(Whereabouts::Parked);
    }
    Ok(Whereabouts::With(courier_id(courier)?))
}

pub(super) fn outcome_of(text: &str) -> RedisResult<Outcome> {
    let wrong = || invalid_answer("not an outcome");
    let mut letters = text.chars();
    let kind = letters.next();
    let rest = letters.as_str();
    Ok(match kind {
        Some('a') => Outcome::Assigned(courier_id(rest)?),
        Some('p') => Outcome::Parked,
        Some('u') => Outcome::Updated {
            unparked: rest.parse().map_err(|_| wrong())?,
        },
        Some('d') => Outcome::Duplicate(place_of(rest)?),
        _ => return Err(wrong()),
    })
}

/// What moves to another zone with a courier.
#[derive(Debug, Clone)]
pub(super) struct Takes {
    pub(super) sequence: String,
    /// Empty if they were only reported.
    pub(super) count: String,
    /// The log number after which they arrive.
    pub(super) number: String,
    /// When the event was received.
    pub(super) at: String,
    /// The event as stored, ...
    pub(super) event: String,
    /// ... and parsed.
    pub(super) said: AddCourier,
}

impl Takes {
    pub(super) fn read(text: &str) -> RedisResult<Self> {
        let parts: Vec<&str> = text.splitn(5, '\n').collect();
        let [sequence, count, number, at, event] = parts[..] else {
            return Err(invalid_answer("not a courier's move"));
        };
        let Event::Courier(said) = event_of(event)? else {
            return Err(invalid_answer("an order does not move"));
        };
        let [sequence, count, number, at, event] =
            [sequence, count, number, at, event].map(str::to_owned);
        Ok(Self {
            sequence,
            count,
            number,
            at,
            event,
            said,
        })
    }

    /// A courier who has left and not arrived yet, as they will be there.
    pub(super) fn on_the_way(self) -> RedisResult<(u64, Courier)> {
        // One who was only reported has no count.
        let count = if self.count.is_empty() {
            0
        } else {
            number(&self.count)?
        };
        let said = self.said;
        Ok((number(&self.sequence)?, Courier { said, count }))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn numbers_of_all_zones_are_one_order_in_which_none_is_left_out() {
        for number in 0..50 {
            let (zone, of) = Number::of(number);
            assert_eq!(of.as_u64(), number);
            assert_eq!(Number::of_stream_id(&of.stream_id(), zone).unwrap(), of);
            for zone in Zone::ALL {
                let next = Number::first_after(number, zone).as_u64();
                assert!(next > number && next <= number + ZONES, "{number} {zone:?}");
                assert_eq!(Number::of(next).0, zone);
            }
        }
    }

    #[test]
    fn times_are_ordered_by_their_letters() {
        let order = |micros| AddOrder {
            id: OrderId(Uuid::nil()),
            details: "".into(),
            zone: Zone::N,
            added_at: Timestamp::from_microsecond(micros).unwrap(),
        };
        let placed = [
            -377_705_023_201_000_000,
            -1,
            0,
            1,
            5_429_000_000_000_000,
            253_402_207_200_000_000,
        ]
        .map(|micros| placed(&order(micros)));
        assert!(placed.is_sorted(), "{placed:#?}");
        assert!(placed.iter().all(|text| text.len() == 20));
    }
}
