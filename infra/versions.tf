terraform {
  # Conditions across variables came with 1.9.
  required_version = ">= 1.9, < 2.0"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # Exact: a plan that was reviewed is the plan that is applied. `key_schema` of an index came with 6.29.
      version = "6.50.0"
    }
  }
}
