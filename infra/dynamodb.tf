# The assignments of all days. The server reads a driver's by the key, and a package's by the index.
resource "aws_dynamodb_table" "assignments" {
  #checkov:skip=CKV_AWS_119:Amazon's managed key is enough for ids, weights and statuses; a key of one's own would need a policy and a rotation
  name         = module.names.assignments_table
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "driver_id"
  range_key    = "package_id"

  attribute {
    name = "driver_id"
    type = "S"
  }

  attribute {
    name = "package_id"
    type = "S"
  }

  global_secondary_index {
    name            = module.names.by_package
    projection_type = "ALL"

    key_schema {
      attribute_name = "package_id"
      key_type       = "HASH"
    }

    key_schema {
      attribute_name = "driver_id"
      key_type       = "RANGE"
    }
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled = true
  }

  deletion_protection_enabled = module.names.protected
}

# The rest of a day: the driver of each package, so that no other driver gets it, and its lists.
resource "aws_dynamodb_table" "packages" {
  #checkov:skip=CKV_AWS_119:As for the assignments
  name         = module.names.packages_table
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "shard"
  range_key    = "item"

  attribute {
    name = "shard"
    type = "S"
  }

  attribute {
    name = "item"
    type = "S"
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled = true
  }

  deletion_protection_enabled = module.names.protected
}
