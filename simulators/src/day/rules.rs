//! What the ten rule codes mean, written down a second time: the server's own reading is what is checked with it.

use std::collections::BTreeSet;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::assignments::{Package, Rule};

/// What a rule says. Bounds are inclusive.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "code", content = "params", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Condition {
    MaxWeight { limit_kg: f64 },
    NoPerishable {},
    RegionOnly { allowed_regions: BTreeSet<String> },
    MaxDistance { max_km: f64 },
    ExpressOnly {},
    FragileOnly {},
    HazmatAllowed { allowed_classes: BTreeSet<u8> },
    TempControl { min_c: f64, max_c: f64 },
    TimeWindow { start_hour: u8, end_hour: u8 },
    Oversized { min_volume_m3: f64 },
}

impl Condition {
    /// What a rule says; why not, if it is none that is known here.
    pub(crate) fn of(rule: &Rule) -> Result<Self, String> {
        fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
            serde_json::from_value(value).map_err(|error| error.to_string())
        }
        let params = Value::from(rule.params.clone());
        read(serde_json::json!({ "code": rule.code, "params": params }))
    }

    /// Whether a driver with this rule may carry the package.
    pub(crate) fn admits(&self, package: &Package) -> bool {
        match self {
            Self::MaxWeight { limit_kg } => package.weight_kg <= *limit_kg,
            Self::NoPerishable {} => !package.is_perishable,
            Self::RegionOnly { allowed_regions } => allowed_regions.contains(&package.region),
            Self::MaxDistance { max_km } => package.distance_km <= *max_km,
            Self::ExpressOnly {} => package.is_express,
            Self::FragileOnly {} => package.is_fragile,
            Self::HazmatAllowed { allowed_classes } => {
                let class = package.hazmat_class;
                class.is_none_or(|class| allowed_classes.contains(&class))
            }
            Self::TempControl { min_c, max_c } => {
                (*min_c..=*max_c).contains(&package.temperature_c)
            }
            Self::TimeWindow {
                start_hour,
                end_hour,
            } => (*start_hour..=*end_hour).contains(&package.delivery_hour),
            Self::Oversized { min_volume_m3 } => package.volume_m3 >= *min_volume_m3,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::assignments::tests::package;

    fn rule(code: &str, params: &Value) -> Rule {
        Rule {
            id: None,
            code: code.to_owned(),
            params: params.as_object().unwrap().clone(),
        }
    }

    /// Whether the rule admits a package with this attribute.
    fn admits(code: &str, params: &Value, attribute: &str, value: &Value) -> bool {
        let mut package = json!(package("p1"));
        package[attribute] = value.clone();
        let package = serde_json::from_value(package).unwrap();
        Condition::of(&rule(code, params)).unwrap().admits(&package)
    }

    /// Code, parameters, attribute, a value that is admitted and one that is not.
    const CASES: &str = r#"
        MAX_WEIGHT {"limit_kg":10} weight_kg 10.0 10.01
        NO_PERISHABLE {} is_perishable false true
        REGION_ONLY {"allowed_regions":["south","north"]} region "south" "east"
        REGION_ONLY {"allowed_regions":["south","north"]} region "north" "west"
        MAX_DISTANCE {"max_km":50} distance_km 50 50.01
        EXPRESS_ONLY {} is_express true false
        FRAGILE_ONLY {} is_fragile true false
        HAZMAT_ALLOWED {"allowed_classes":[2,4]} hazmat_class 4 3
        HAZMAT_ALLOWED {"allowed_classes":[2,4]} hazmat_class null 1
        TEMP_CONTROL {"min_c":2,"max_c":8} temperature_c 2 1.99
        TEMP_CONTROL {"min_c":2,"max_c":8} temperature_c 8 8.01
        TIME_WINDOW {"start_hour":8,"end_hour":17} delivery_hour 8 7
        TIME_WINDOW {"start_hour":8,"end_hour":17} delivery_hour 17 18
        OVERSIZED {"min_volume_m3":0.5} volume_m3 0.5 0.49
    "#;

    #[test]
    fn each_rule_judges_its_attribute_and_has_inclusive_bounds() {
        for case in CASES.trim().lines() {
            let words: Vec<_> = case.split_whitespace().collect();
            let [code, params, attribute, yes, no] = words[..] else {
                panic!("{case}")
            };
            let [params, yes, no] =
                [params, yes, no].map(|text| serde_json::from_str(text).unwrap());
            assert!(admits(code, &params, attribute, &yes), "{case}");
            assert!(!admits(code, &params, attribute, &no), "{case}");
        }
    }

    #[test]
    fn what_is_no_rule_is_told() {
        for (code, params) in [
            ("MAX_HEIGHT", json!({ "limit_m": 1 })),
            ("MAX_WEIGHT", json!({})),
            ("REGION_ONLY", json!({ "allowed_regions": "north" })),
        ] {
            assert!(Condition::of(&rule(code, &params)).is_err(), "{code}");
        }
    }

    #[test]
    fn rules_that_say_the_same_are_the_same() {
        let of = |params| Condition::of(&rule("REGION_ONLY", &params)).unwrap();
        let one = of(json!({ "allowed_regions": ["south", "north"] }));
        assert_eq!(
            one,
            of(json!({ "allowed_regions": ["north", "south", "north"] }))
        );
        assert_ne!(one, of(json!({ "allowed_regions": ["north"] })));
        let of = |params| Condition::of(&rule("MAX_WEIGHT", &params)).unwrap();
        assert_eq!(
            of(json!({ "limit_kg": 10 })),
            of(json!({ "limit_kg": 10.0 }))
        );
    }
}
