# What Odyssey needs of Amazon. One file per service; who is allowed what is in iam.tf, and how things are called in names/.

module "names" {
  source = "./names"

  workspace     = terraform.workspace
  bucket_suffix = var.bucket_suffix
  tags          = var.tags
}

locals {
  emulated = var.endpoint != null
}

provider "aws" {
  region = var.region

  default_tags {
    tags = module.names.tags
  }

  # An emulator accepts any credentials, and has one address for all buckets. On AWS, credentials are found as by the AWS
  # command line.
  access_key                  = local.emulated ? "test" : null
  secret_key                  = local.emulated ? "test" : null
  skip_credentials_validation = local.emulated
  skip_metadata_api_check     = local.emulated
  skip_requesting_account_id  = local.emulated
  s3_use_path_style           = local.emulated

  dynamic "endpoints" {
    for_each = local.emulated ? [var.endpoint] : []

    content {
      dynamodb = endpoints.value
      iam      = endpoints.value
      s3       = endpoints.value
      sns      = endpoints.value
      sqs      = endpoints.value
      sts      = endpoints.value
    }
  }
}
