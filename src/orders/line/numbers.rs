//! Pick-up numbers in use. They are given in turn, so that a number comes again only after most others.

use fixedbitset::FixedBitSet;

use super::super::model::{PICKUP_NUMBERS, PickupNumber};

/// Numbers in use that are passed over for one order. With more in a row it has none: then most are in use.
const PASSED_OVER_MAX: u16 = 50;

#[derive(Debug)]
pub(super) struct Numbers {
    used: FixedBitSet,
    next: u16,
}

impl Numbers {
    pub(super) fn new() -> Self {
        Self {
            used: FixedBitSet::with_capacity(PICKUP_NUMBERS.into()),
            next: 0,
        }
    }

    /// The next number that is not in use.
    pub(super) fn take(&mut self) -> Option<PickupNumber> {
        for _ in 0..PASSED_OVER_MAX {
            let number = PickupNumber(self.next);
            self.next = (self.next + 1) % PICKUP_NUMBERS;
            if self.reserve(number) {
                return Some(number);
            }
        }
        None
    }

    /// False if it is in use.
    pub(super) fn reserve(&mut self, PickupNumber(number): PickupNumber) -> bool {
        !self.used.put(number.into())
    }

    pub(super) fn free(&mut self, number: Option<PickupNumber>) {
        if let Some(PickupNumber(number)) = number {
            self.used.set(number.into(), false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_in_use_is_given_to_no_other_order() {
        let mut numbers = Numbers::new();
        let first = numbers.take();
        let second = numbers.take();
        assert_eq!(
            (first, second),
            (Some(PickupNumber(0)), Some(PickupNumber(1)))
        );
        numbers.free(first);
        let others: Vec<_> = (2..PICKUP_NUMBERS).map(|_| numbers.take()).collect();
        assert_eq!(others.last(), Some(&Some(PickupNumber(2599))));
        // Only the first is free.
        assert_eq!(numbers.take(), first);
        assert_eq!(numbers.take(), None);
        numbers.free(Some(PickupNumber(60)));
        assert_eq!(numbers.take(), Some(PickupNumber(60)));
    }
}
