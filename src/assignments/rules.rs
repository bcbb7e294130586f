//! What a driver may carry. One type per code; each judges one package. Pure.
//!
//! Bounds are inclusive. Attributes without a rule do not matter. The codes and their parameters are those of the logistics
//! centre's lists. A new rule is a type that implements [`Condition`], and its name in the list at [`Rule`].

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeStruct};
use serde_json::{Map, Value, json};

use super::model::{Package, Region};

pub type Params = Map<String, Value>;

/// A rule of one code.
pub trait Condition: Sized {
    const CODE: &'static str;

    /// Parses the parameters; unknown ones are ignored.
    ///
    /// # Errors
    /// [`Wrong`], with the parameter.
    fn read(params: &Params) -> Result<Self, Wrong>;

    fn params(&self) -> Value;

    /// # Errors
    /// Why the package may not be carried.
    fn judge(&self, package: &Package) -> Result<(), Reason>;
}

/// An invalid parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub param: &'static str,
    pub detail: String,
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

fn wrong<T>(param: &'static str, detail: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong {
        param,
        detail: detail.into(),
    })
}

fn number(params: &Params, param: &'static str) -> Result<f64, Wrong> {
    match params.get(param) {
        Some(Value::Number(number)) => Ok(number.as_f64().unwrap_or(f64::MAX)),
        Some(_) => wrong(param, "It must be a number."),
        None => wrong(param, "This parameter is missing."),
    }
}

fn not_negative(params: &Params, param: &'static str) -> Result<f64, Wrong> {
    match number(params, param)? {
        number if number < 0.0 => wrong(param, "It must not be negative."),
        number => Ok(number),
    }
}

fn list<'a>(params: &'a Params, param: &'static str) -> Result<&'a [Value], Wrong> {
    match params.get(param) {
        Some(Value::Array(list)) if !list.is_empty() => Ok(list),
        Some(Value::Array(_)) => wrong(param, "The list is empty: nothing could ever be carried."),
        Some(_) => wrong(param, "It must be a list."),
        None => wrong(param, "This parameter is missing."),
    }
}

/// `limit_kg` at most.
#[derive(Debug, Clone, PartialEq)]
pub struct MaxWeight {
    limit_kg: f64,
}

impl Condition for MaxWeight {
    const CODE: &'static str = "MAX_WEIGHT";

    fn read(params: &Params) -> Result<Self, Wrong> {
        Ok(Self {
            limit_kg: not_negative(params, "limit_kg")?,
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

    fn read(_: &Params) -> Result<Self, Wrong> {
        Ok(Self)
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

    fn read(params: &Params) -> Result<Self, Wrong> {
        const PARAM: &str = "allowed_regions";
        let mut allowed = Vec::new();
        for region in list(params, PARAM)? {
            let Some(region) = region.as_str().and_then(Region::parse) else {
                let known = Region::ALL.map(Region::as_str).join(", ");
                return wrong(
                    PARAM,
                    format!("{region} is no region; the regions are {known}."),
                );
            };
            allowed.push(region);
        }
        allowed.sort_unstable();
        allowed.dedup();
        Ok(Self { allowed })
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

    fn read(params: &Params) -> Result<Self, Wrong> {
        Ok(Self {
            max_km: not_negative(params, "max_km")?,
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

    fn read(_: &Params) -> Result<Self, Wrong> {
        Ok(Self)
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

    fn read(_: &Params) -> Result<Self, Wrong> {
        Ok(Self)
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

    fn read(params: &Params) -> Result<Self, Wrong> {
        const PARAM: &str = "allowed_classes";
        let mut allowed = Vec::new();
        for class in list(params, PARAM)? {
            match class.as_u64().and_then(|class| u8::try_from(class).ok()) {
                Some(class @ 1..=9) => allowed.push(class),
                _ => {
                    return wrong(
                        PARAM,
                        format!("{class} is no class; the classes are 1 to 9."),
                    );
                }
            }
        }
        allowed.sort_unstable();
        allowed.dedup();
        Ok(Self { allowed })
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

    fn read(params: &Params) -> Result<Self, Wrong> {
        let (min_c, max_c) = (number(params, "min_c")?, number(params, "max_c")?);
        if min_c > max_c {
            return wrong("max_c", "It must not be below `min_c`.");
        }
        Ok(Self { min_c, max_c })
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

    fn read(params: &Params) -> Result<Self, Wrong> {
        let hour = |param| {
            let hour = params.get(param).and_then(Value::as_u64);
            match hour.and_then(|hour| u8::try_from(hour).ok()) {
                Some(hour @ 0..=23) => Ok(hour),
                _ => wrong(param, "It must be an hour, a whole number from 0 to 23."),
            }
        };
        let (start_hour, end_hour) = (hour("start_hour")?, hour("end_hour")?);
        if start_hour > end_hour {
            return wrong(
                "end_hour",
                "It must not be before `start_hour`: a window is within one day.",
            );
        }
        Ok(Self {
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

    fn read(params: &Params) -> Result<Self, Wrong> {
        Ok(Self {
            min_volume_m3: not_negative(params, "min_volume_m3")?,
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

            /// Parses a rule; None if there is no such code.
            pub fn read(code: &str, params: &Params) -> Option<Result<Self, Wrong>> {
                match code {
                    $($condition::CODE => Some($condition::read(params).map(Self::$condition)),)*
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

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Written {
            code: String,
            #[serde(default)]
            params: Params,
        }
        let written = Written::deserialize(deserializer)?;
        let unknown = || de::Error::unknown_variant(&written.code, Self::CODES);
        let rule = Self::read(&written.code, &written.params).ok_or_else(unknown)?;
        rule.map_err(|Wrong { param, detail }| de::Error::custom(format!("{param}: {detail}")))
    }
}

#[cfg(test)]
mod tests;
