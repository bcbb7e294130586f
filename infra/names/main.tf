# How things are called. No provider is needed to know it: `terraform test` runs without a network.

terraform {
  required_version = ">= 1.9, < 2.0"
}

locals {
  prefix = var.workspace == "default" ? "" : "${var.workspace}-"
}
