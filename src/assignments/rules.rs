//! What a driver may carry. One type per code; each judges one package. Pure.
//!
//! Bounds are inclusive. Attributes without a rule do not matter. The codes and their parameters are those of the logistics
//! centre's lists. A new rule is a type that implements [`Condition`], and its name in the list at [`Rule`].

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeStruct};
use serde_json::{Value, json};

use super::model::{Package, Region};
use crate::values::json::{self, Fields, Read};

/// A rule of one code.
pub trait Condition: Sized {
    const CODE: &'static str;

    /// Parses the parameters; unknown ones are ignored. None after a mistake, which is in `params`.
    fn read(params: &mut Fields<'_>) -> Option<Self>;

    fn params(&self) -> Value;

    /// # Errors
    /// Why the package may not be carried.
    fn judge(&self, package: &Package) -> Result<(), Reason>;
}

/// Why a package may not be carried.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "each message has its fields")]
pub enum Reason {
    Above {
        what: &'static str,
        is: f64,
        most: f64,
        unit: &'static str,
    },
    Below {
        what: &'static str,
        is: f64,
        least: f64,
        unit: &'static str,
    },
    Perishable,
    NotExpress,
    NotFragile,
    /// Another region than the allowed ones.
    Elsewhere {
        region: Region,
    },
    Hazmat {
        class: u8,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Above {
                what,
                is,
                most,
                unit,
            } => write!(f, "{what} {is}{unit} is above {most}{unit}"),
            Self::Below {
                what,
                is,
                least,
                unit,
            } => write!(f, "{what} {is}{unit} is below {least}{unit}"),
            Self::Perishable => f.write_str("it is perishable"),
            Self::NotExpress => f.write_str("it is not express"),
            Self::NotFragile => f.write_str("it is not fragile"),
            Self::Elsewhere { region } => write!(f, "its region is {}", region.as_str()),
            Self::Hazmat { class } => write!(f, "its hazmat class is {class}"),
        }
    }
}

fn at_most(what: &'static str, is: f64, most: f64, unit: &'static str) -> Result<(), Reason> {
    if is <= most {
        Ok(())
    } else {
        Err(Reason::Above {
            what,
            is,
            most,
            unit,
        })
    }
}

fn at_least(what: &'static str, is: f64, least: f64, unit: &'static str) -> Result<(), Reason> {
    if is >= least {
        Ok(())
    } else {
        Err(Reason::Below {
            what,
            is,
            least,
            unit,
        })
    }
}

fn unless(refused: bool, reason: Reason) -> Result<(), Reason> {
    if refused { Err(reason) } else { Ok(()) }
}

const NOT_NEGATIVE: RangeInclusive<f64> = 0.0..=f64::MAX;
const TEMPERATURES: RangeInclusive<f64> = f64::MIN..=f64::MAX;
const HOURS: RangeInclusive<u64> = 0..=23;

/// A list of what is allowed, sorted and unique; `detail` is the mistake of an element that `parse` rejects.
fn allowed<T: Ord>(
    params: &mut Fields<'_>,
    name: &str,
    parse: impl Fn(&Value) -> Option<T>,
    detail: impl FnOnce(&Value) -> String,
) -> Option<Vec<T>> {
    let list = params.list(name)?;
    if list.is_empty() {
        return params.wrong(name, "The list is empty: nothing could ever be carried.");
    }
    let mut allowed = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let Some(element) = parse(value) else {
            return params.wrong(&format!("{name}/{index}"), detail(value));
        };
        allowed.push(element);
    }
    allowed.sort_unstable();
    allowed.dedup();
    Some(allowed)
}

/// `limit_kg` at most.
#[derive(Debug, Clone, PartialEq)]
pub struct MaxWeight {
    limit_kg: f64,
}

impl Condition for MaxWeight {
    const CODE: &'static str = "MAX_WEIGHT";

    fn read(params: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            limit_kg: params.number("limit_kg", NOT_NEGATIVE)?,
        })
    }

    fn params(&self) -> Value {
        json!({ "limit_kg": self.limit_kg })
    }

    fn judge(&self, package: &Package) -> Result<(), Reason> {
        at_most("its weight of", package.weight_kg, self.limit_kg, " kg")
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct NoPerishable;

impl Condition for NoPerishable {
    const CODE: &'static str = "NO_PERISHABLE";

    fn read(_: &mut Fields<'_>) -> Option<Self> {
        Some(Self)
    }

    fn params(&self) -> Value {
        json!({})
    }

    fn judge(&self, package: &Package) -> Result<(), Reason> {
        unless(package.is_perishable, Reason::Perishable)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct RegionOnly {
    /// In the order of [`Region::ALL`], unique.
    allowed: Vec<Region>,
}

impl Condition for RegionOnly {
    const CODE: &'static str = "REGION_ONLY";

    fn read(params: &mut Fields<'_>) -> Option<Self> {
        let parse = |region: &Value| Region::parse(region.as_str()?);
        let detail = |region: &Value| format!("{region} is no region. {}", Region::known());
        let allowed = allowed(params, "allowed_regions", parse, detail)?;
        Some(Self { allowed })
    }

    fn params(&self) -> Value {
        json!({ "allowed_regions": self.allowed })
    }

    fn judge(&self, package: &Package) -> Result<(), Reason> {
        let region = package.region;
        unless(
            !self.allowed.contains(&region),
            Reason::Elsewhere { region },
        )
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct MaxDistance {
    max_km: f64,
}

impl Condition for MaxDistance {
    const CODE: &'static str = "MAX_DISTANCE";

    fn read(params: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            max_km: params.number("max_km", NOT_NEGATIVE)?,
        })
    }

    fn params(&self) -> Value {
        json!({ "max_km": self.max_km })
    }

    fn judge(&self, package: &Package) -> Result<(), Reason> {
        at_most("its distance of", package.distance_km, self.max_km, " km")
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct ExpressOnly;

impl Condition for ExpressOnly {
    const CODE: &'static str = "EXPRESS_ONLY";

    fn read(_: &mut Fields<'_>) -> Option<Self> {
        Some(Self)
    }

    fn params(&self) -> Value {
        json!({})
    }

    fn judge(&self, package: &Package) -> Result<(), Reason> {
        unless(!package.is_express, Reason::NotExpress)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct FragileOnly;

impl Condition for FragileOnly {
    const CODE: &'static str = "FRAGILE_ONLY";

    fn read(_: &mut Fields<'_>) -> Option<Self> {
        Some(Self)
    }

    fn params(&self) -> Value {
        json!({})
    }

    fn judge(&self, package: &Package) -> Result<(), Reason> {
        unless(!package.is_fragile, Reason::NotFragile)
    }
}

/// Packages that are not dangerous pass.
#[derive(Debug, Clone, PartialEq)]
pub struct HazmatAllowed {
    /// Ascending, unique.
    allowed: Vec<u8>,
}

impl Condition for HazmatAllowed {
    const CODE: &'static str = "HAZMAT_ALLOWED";

    fn read(params: &mut Fields<'_>) -> Option<Self> {
        let parse = |class: &Value| {
            let class = u8::try_from(class.as_u64()?).ok();
            class.filter(|class| (1..=9).contains(class))
        };
        let detail = |class: &Value| format!("{class} is no class. The classes are 1 to 9.");
        let allowed = allowed(params, "allowed_classes", parse, detail)?;
        Some(Self { allowed })
    }

    fn params(&self) -> Value {
        json!({ "allowed_classes": self.allowed })
    }

    fn judge(&self, package: &Package) -> Result<(), Reason> {
        match package.hazmat_class {
            Some(class) => unless(!self.allowed.contains(&class), Reason::Hazmat { class }),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct TempControl {
    min_c: f64,
    max_c: f64,
}

impl Condition for TempControl {
    const CODE: &'static str = "TEMP_CONTROL";

    fn read(params: &mut Fields<'_>) -> Option<Self> {
        let min_c = params.number("min_c", TEMPERATURES)?;
        let max_c = params.number("max_c", TEMPERATURES)?;
        if min_c > max_c {
            return params.wrong("max_c", "It must not be below `min_c`.");
        }
        Some(Self { min_c, max_c })
    }

    fn params(&self) -> Value {
        json!({ "min_c": self.min_c, "max_c": self.max_c })
    }

    fn judge(&self, package: &Package) -> Result<(), Reason> {
        const WHAT: &str = "its temperature of";
        at_least(WHAT, package.temperature_c, self.min_c, " °C")?;
        at_most(WHAT, package.temperature_c, self.max_c, " °C")
    }
}

/// Hours of one day.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeWindow {
    start_hour: u8,
    end_hour: u8,
}

impl Condition for TimeWindow {
    const CODE: &'static str = "TIME_WINDOW";

    fn read(params: &mut Fields<'_>) -> Option<Self> {
        let start_hour = params.whole("start_hour", HOURS)?;
        let end_hour = params.whole("end_hour", HOURS)?;
        if start_hour > end_hour {
            let detail = "It must not be before `start_hour`: a window is within one day.";
            return params.wrong("end_hour", detail);
        }
        Some(Self {
            start_hour,
            end_hour,
        })
    }

    fn params(&self) -> Value {
        json!({ "start_hour": self.start_hour, "end_hour": self.end_hour })
    }

    fn judge(&self, package: &Package) -> Result<(), Reason> {
        const WHAT: &str = "its delivery hour";
        let hour = f64::from(package.delivery_hour);
        at_least(WHAT, hour, f64::from(self.start_hour), "")?;
        at_most(WHAT, hour, f64::from(self.end_hour), "")
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Oversized {
    min_volume_m3: f64,
}

impl Condition for Oversized {
    const CODE: &'static str = "OVERSIZED";

    fn read(params: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            min_volume_m3: params.number("min_volume_m3", NOT_NEGATIVE)?,
        })
    }

    fn params(&self) -> Value {
        json!({ "min_volume_m3": self.min_volume_m3 })
    }

    fn judge(&self, package: &Package) -> Result<(), Reason> {
        at_least(
            "its volume of",
            package.volume_m3,
            self.min_volume_m3,
            " m³",
        )
    }
}

macro_rules! codes {
    ($($condition:ident),* $(,)?) => {
        #[derive(Debug, Clone, PartialEq)]
        #[expect(missing_docs, reason = "each has its own type, which tells")]
        pub enum Rule {
            $($condition($condition)),*
        }

        impl Rule {
            pub const CODES: &'static [&'static str] = &[$($condition::CODE),*];

            /// What parses the parameters of a code.
            fn reader(code: &str) -> Option<fn(&mut Fields<'_>) -> Option<Self>> {
                match code {
                    $($condition::CODE => Some(|params| $condition::read(params).map(Self::$condition)),)*
                    _ => None,
                }
            }

            pub fn code(&self) -> &'static str {
                match self {
                    $(Self::$condition(_) => $condition::CODE),*
                }
            }

            /// Equal for equal rules.
            pub fn params(&self) -> Value {
                match self {
                    $(Self::$condition(condition) => condition.params()),*
                }
            }

            /// # Errors
            /// Why the package may not be carried.
            pub fn judge(&self, package: &Package) -> Result<(), Reason> {
                match self {
                    $(Self::$condition(condition) => condition.judge(package)),*
                }
            }
        }
    };
}

codes![
    MaxWeight,
    NoPerishable,
    RegionOnly,
    MaxDistance,
    ExpressOnly,
    FragileOnly,
    HazmatAllowed,
    TempControl,
    TimeWindow,
    Oversized,
];

/// As in a manifest: `code` and `params`.
impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut written = serializer.serialize_struct("Rule", 2)?;
        written.serialize_field("code", self.code())?;
        written.serialize_field("params", &self.params())?;
        written.end()
    }
}

impl Read for Rule {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let Some(code) = fields.get("code")?.as_str() else {
            return fields.wrong("code", "It must be a text.");
        };
        let Some(reader) = Self::reader(code) else {
            let codes = Self::CODES.join(", ");
            let detail = format!("There is no rule {code:?}. The codes are {codes}.");
            return fields.wrong("code", detail);
        };
        fields.object("params", reader)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rule = json::get(&Value::deserialize(deserializer)?);
        rule.map_err(|mistakes| de::Error::custom(json::joined(&mistakes)))
    }
}

#[cfg(test)]
mod tests;
